"""Two networks beside this machine's own: one in which workers live with their node, and behind a cable all that there
is to them of the world.

Owns both, who listens in them, and what a name leads to there. Must know no worker and no application.

Somebody listens on port 80 of a public address, of a private one, of the one where clouds keep a machine's secrets, and
of the workers' own loopback interface, and counts connections. The kernel of the workers' network counts what begins
one (SYN), answered or not. Both counts are tried once before anybody relies on them (`World.open`). Names are what a
server in the world says, without any memory, so that a name can lead elsewhere at the next question. Nothing is left of
all this when its `World` is closed or the run ends. Cost: two networks, a cable and five threads.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import ctypes
import os
import socket
import socketserver
import struct
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from tests.apps.worker_process import WorkerProcess
from tests.harness.namespaces import Cable, Network, run

PUBLIC, PRIVATE, METADATA, LOOPBACK = "93.184.215.14", "10.9.8.7", "169.254.169.254", "127.0.0.1"
ADDRESSES = (PUBLIC, PRIVATE, METADATA, LOOPBACK)
PAGE = b"<!doctype html><title>Batteries</title><p>Large batteries stored more energy than ever before.</p>"
CLONE_NEWNS = 0x20000
A, IN, NO_SUCH_NAME = 1, 1, 3
_libc = ctypes.CDLL(None, use_errno=True)


class Listener(socketserver.ThreadingTCPServer):
    """A web site at port 80 of an address. `/to/URL` leads to that URL."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, address: str) -> None:
        self.connections = 0
        super().__init__((address, 80), Page)

    def verify_request(self, *_: object) -> bool:
        self.connections += 1
        return True

    def handle_error(self, *_: object) -> None:
        """Who has only connected has asked nothing."""


class Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        leads = self.path.startswith("/to/")
        self.send_response(302 if leads else 200)
        if leads:
            self.send_header("Location", self.path.removeprefix("/to/"))
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(PAGE)))
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, *_: object) -> None:
        """Silence."""


class NameServer(socketserver.UDPServer):
    """Says what names lead to, by `names`: the answers to one question after another, and then from the first again."""

    def __init__(self, address: str, names: Mapping[str, tuple[tuple[str, ...], ...]]) -> None:
        self._names = names
        self._asked: Counter[str] = Counter()
        super().__init__((address, 53), Question)

    def answer(self, question: bytes) -> bytes:
        """RFC 1035; of what a stub resolver asks."""
        labels, place = [], 12
        while length := question[place]:
            labels.append(question[place + 1 : place + 1 + length])
            place += 1 + length
        [kind] = struct.unpack(">H", question[place + 1 : place + 3])
        name = b".".join(labels).decode().lower()
        answers = self._names.get(name, ())
        found: tuple[str, ...] = ()
        if kind == A and answers:
            found = answers[self._asked[name] % len(answers)]
            self._asked[name] += 1
        flags = 0x8180 | (0 if answers else NO_SUCH_NAME)
        head = question[:2] + struct.pack(">5H", flags, 1, len(found), 0, 0)
        said = [struct.pack(">3HIH", 0xC00C, A, IN, 0, 4) + socket.inet_aton(address) for address in found]
        return head + question[12 : place + 5] + b"".join(said)


class Question(socketserver.DatagramRequestHandler):
    server: NameServer

    def handle(self) -> None:
        self.wfile.write(self.server.answer(self.rfile.read()))


class World:
    """See the module's head. `network` is the one in which workers and their node live."""

    def __init__(self, folder: Path, names: Mapping[str, tuple[tuple[str, ...], ...]]) -> None:
        self._folder = folder
        self._names = names
        self._closing = contextlib.ExitStack()
        self._before: Counter[str] = Counter()
        self._listeners: dict[str, Listener] = {}

    @contextlib.contextmanager
    def open(self) -> Iterator[World]:
        with self._closing:
            self._lay()
            self._listen()
            self._try()
            yield self

    def _lay(self) -> None:
        self.network, self._beyond = Network(), Network()
        self._closing.callback(self.network.close)
        self._closing.callback(self._beyond.close)
        with self.network.entered():
            cable = Cable(self._beyond)
            run("ip", "route", "add", "default", "via", cable.inner)
            begins = ("iptables", "-A", "OUTPUT", "-p", "tcp", "--syn")
            for address in ADDRESSES:
                run(*begins, "-d", address, "--dport", "80", "-j", "ACCEPT")
            run(*begins, "!", "-o", "lo", "-j", "ACCEPT")  # to anywhere else
        with self._beyond.entered():
            for address in (PUBLIC, PRIVATE, METADATA):
                run("ip", "addr", "add", f"{address}/32", "dev", "lo")
        self._name_server = cable.inner
        (self._folder / "resolv.conf").write_text(f"nameserver {cable.inner}\n")
        (self._folder / "nsswitch.conf").write_text("hosts: files dns\n")

    def _listen(self) -> None:
        for address in ADDRESSES:
            with (self.network if address == LOOPBACK else self._beyond).entered():
                self._listeners[address] = Listener(address)
        with self._beyond.entered():
            names = NameServer(self._name_server, self._names)
        for server in (*self._listeners.values(), names):
            thread = threading.Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            self._closing.callback(thread.join)
            self._closing.callback(server.server_close)
            self._closing.callback(server.shutdown)

    def _try(self) -> None:
        """Ask each address once: it is there, and what is counted of it is counted."""
        with self.network.entered():
            for address in ADDRESSES:
                with socket.create_connection((address, 80), 5) as connection:
                    connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
                    assert connection.recv(100).startswith(b"HTTP/1.0 200 ")
        assert self.begun() == self.connections() == dict.fromkeys(ADDRESSES, 1)
        self.forget()

    def _counted(self) -> Counter[str]:
        """By the kernel, by address; what goes elsewhere is `elsewhere`. And by the listeners."""
        lines = self.network.run("iptables", "-nvxL", "OUTPUT").splitlines()[2:]
        counted = Counter(dict(zip((*ADDRESSES, "elsewhere"), (int(line.split()[0]) for line in lines), strict=True)))
        return counted + Counter({f"at {name}": one.connections for name, one in self._listeners.items()})

    def forget(self) -> None:
        """Count from now on."""
        self._before = self._counted()

    def begun(self) -> dict[str, int]:
        """How many connections were tried, by address; those that were not are not there."""
        since = self._counted() - self._before
        return {name: count for name, count in since.items() if not name.startswith("at ")}

    def connections(self) -> dict[str, int]:
        """How many there were, by the address that somebody listens at."""
        since = self._counted() - self._before
        return {name.removeprefix("at "): count for name, count in since.items() if name.startswith("at ")}

    @contextlib.contextmanager
    def inhabited(self, worker: WorkerProcess) -> Iterator[WorkerProcess]:
        """A worker lives there meanwhile, and asks the world's server for names."""
        # What a thread has of its own it can't share again: it ends with that, and the worker is its heir.
        with concurrent.futures.ThreadPoolExecutor(1) as thread:
            thread.submit(self._begin, worker).result()
        try:
            yield worker
        finally:
            worker.kill()

    def _begin(self, worker: WorkerProcess) -> None:
        with self.network.entered():
            assert _libc.unshare(CLONE_NEWNS) == 0, os.strerror(ctypes.get_errno())
            run("mount", "--make-rprivate", "/")
            for name in ("resolv.conf", "nsswitch.conf"):
                run("mount", "--bind", str(self._folder / name), f"/etc/{name}")
            worker.start()
