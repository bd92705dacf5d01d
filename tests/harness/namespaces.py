"""Another network on this machine: a namespace, a cable to it that can be cut, and a node that lives there.

A `Network` has no name. The kernel keeps it, and the cable with it, for as long as something is inside or holds it: so
nothing is left behind, also when a run is killed. Which network a socket belongs to is decided by the thread that makes
it; so whoever has `entered` one has sockets, threads and processes there, and what is open already stays where it is.

Addresses are of 198.18.0.0/15, which is set aside for tests of networks and is nobody's.
"""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import itertools
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tests.harness.process import Node

CLONE_NEWNET = 0x40000000
INNER = "faraway"  # the inner end of a cable, as iptables and ip know it
_SPARE = ipaddress.IPv4Address("198.18.0.0")
_libc = ctypes.CDLL(None, use_errno=True)
_numbers = itertools.cycle(range(16_384))
for _ in range(os.getpid() * 5003 % 16_384):
    next(_numbers)


def _checked(result: int, what: str) -> None:
    if result:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def _current() -> int:
    """A descriptor of the network that this thread is in."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _go(descriptor: int) -> None:
    _checked(_libc.setns(descriptor, CLONE_NEWNET), "setns")


def run(*command: str) -> str:
    """What a command prints."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


class Network:
    """A network that has its own loopback and nothing else. Raises OSError where the kernel does not permit one."""

    def __init__(self) -> None:
        home = _current()
        try:
            _checked(_libc.unshare(CLONE_NEWNET), "unshare")
            self.descriptor = _current()
            _go(home)
        finally:
            os.close(home)
        self.run("ip", "link", "set", "lo", "up")

    @property
    def path(self) -> str:
        """Where other processes find it."""
        return f"/proc/{os.getpid()}/fd/{self.descriptor}"

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """This thread, and the threads and processes that it starts, are inside meanwhile."""
        home = _current()
        _go(self.descriptor)
        try:
            yield
        finally:
            _go(home)
            os.close(home)

    def run(self, *command: str) -> str:
        """What a command prints inside."""
        with self.entered():
            return run(*command)

    def close(self) -> None:
        os.close(self.descriptor)


class Place(NamedTuple):
    """An interface of ours, its address, and that of the other end."""

    name: str
    outer: str
    inner: str


def take_place(made: Callable[[str], bool]) -> Place:
    """The first place whose interface could be made. Who has the interface has the addresses: the kernel takes a name
    once, whoever else looks for one."""
    for number in itertools.islice(_numbers, 100):
        if made(f"rcast{number}"):
            return Place(f"rcast{number}", str(_SPARE + 4 * number + 1), str(_SPARE + 4 * number + 2))
    raise AssertionError("no link could be laid")


class Cable:
    """Leads from here (`outer`) into a network (`inner`). What is done to it is done at the inner end."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.name, self.outer, self.inner = take_place(self._made)
        run("ip", "addr", "add", f"{self.outer}/30", "dev", self.name)
        run("ip", "link", "set", self.name, "up")
        network.run("ip", "addr", "add", f"{self.inner}/30", "dev", INNER)
        network.run("ip", "link", "set", INNER, "up")

    def _made(self, name: str) -> bool:
        ends = ("ip", "link", "add", name, "type", "veth", "peer", "name", INNER, "netns", self.network.path)
        return subprocess.run(ends, capture_output=True, check=False).returncode == 0

    def drop(self, *, incoming: bool = True, outgoing: bool = True) -> None:
        """From now on packets vanish, and nobody is told."""
        if incoming:
            self.network.run("iptables", "-A", "INPUT", "-i", INNER, "-j", "DROP")
        if outgoing:
            self.network.run("iptables", "-A", "OUTPUT", "-o", INNER, "-j", "DROP")

    def refuse(self) -> None:
        """From now on what goes out is answered with a reset, a connection as well as a try to connect."""
        tcp = ("iptables", "-A", "OUTPUT", "-o", INNER, "-p", "tcp")
        reset = ("-j", "REJECT", "--reject-with", "tcp-reset")
        self.network.run(*tcp, "--syn", *reset)
        self.network.run(*tcp, *reset)

    def refused(self) -> int:
        """How many tries to connect were refused."""
        return int(self.network.run("iptables", "-nvxL", "OUTPUT").split("\n")[2].split()[0])

    def unplug(self) -> None:
        """The inner end has no link any more."""
        self.network.run("ip", "link", "set", INNER, "down")

    def heal(self) -> None:
        self.network.run("iptables", "-F")
        self.network.run("ip", "link", "set", INNER, "up")

    def cut_off(self) -> None:
        """Take it away."""
        subprocess.run(("ip", "link", "del", self.name), capture_output=True, check=False)


class FarNode(Node):
    """A node in another network. It listens on the loopback interface there, and is asked from there."""

    def __init__(self, network: Network, folder: Path, **settings: object) -> None:
        super().__init__(folder, **settings)
        self.network = network

    def start(self) -> FarNode:
        with self.network.entered():
            super().start()
        return self

    def request(
        self, method: str, path: str, body: bytes | str | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        with self.network.entered():
            return super().request(method, path, body, **headers)


@cache
def reason_not_permitted() -> str | None:
    """Why this process can have no network of its own; None if it can."""
    if os.geteuid() != 0:
        return "a network namespace takes root"
    answers: list[str | None] = []

    def try_it() -> None:  # in a thread that ends with it, wherever it got to
        answers.append(
            f"no network namespace: {os.strerror(ctypes.get_errno())}" if _libc.unshare(CLONE_NEWNET) else None
        )

    thread = threading.Thread(target=try_it)
    thread.start()
    thread.join()
    return answers[0]
