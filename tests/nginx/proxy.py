"""A real nginx with the configuration that is shipped, in a scratch folder and on a free port.

Everything of config/nginx is used as it is, but for what a test cannot have: ports, paths, names, the size of a real
machine. Each such text has to be there exactly as it is replaced here, so that a change of it is noticed. Beside the
port for TLS and HTTP/2 (`port`) there is one without (`plain_port`), for clients of other tests. nginx is ended by its
id.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from tests.harness.process import ROOT, free_port, wait_until
from tests.harness.stream import Stream
from tests.nginx.certificate import make_certificate

SHIPPED = ROOT / "config" / "nginx"
WORKERS = 2
SERVERS = """\
    server unix:/run/ringcast/8001/http.sock max_fails=0;
    server unix:/run/ringcast/8002/http.sock max_fails=0;
"""
# What a module of nginx was built to use is not ours to write to.
SCRATCH = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


class Nginx:
    """`nodes` are addresses as nginx has them (`unix:PATH`, `HOST:PORT`). `changes` are replaced too, text by text;
    each must be found once."""

    def __init__(self, folder: Path, nodes: Sequence[str], changes: Mapping[str, str] | None = None) -> None:
        self.folder = folder / "nginx"
        self.port, self.plain_port = free_port(), free_port()
        self.access_log = self.folder / "access.log"
        self.error_logs = (self.folder / "error.log", self.folder / "request-error.log", self.folder / "stderr.log")
        self.process: subprocess.Popen[bytes] | None = None
        self._generations: list[set[int]] = []
        shutil.copytree(SHIPPED, self.folder)
        self.certificate = make_certificate(self.folder)
        self.context = self.certificate.context()
        self._settle(nodes)
        self.change(changes or {})

    # --- its files

    def _settle(self, nodes: Sequence[str]) -> None:
        scratch = "\n".join(f"{name}_temp_path {self.folder / name};" for name in SCRATCH)
        servers = "\n".join(f"    server {node} max_fails=0;" for node in nodes)
        self.change(
            {
                "user www-data;": "user root;" if os.geteuid() == 0 else "",
                "worker_processes auto;": f"worker_processes {WORKERS};",
                "worker_rlimit_nofile 131072;": "",
                "worker_connections 130000;": "worker_connections 4000;",
                "/run/nginx.pid": str(self.folder / "nginx.pid"),
                "/var/log/nginx/error.log": str(self.error_logs[0]),
                "include /etc/nginx/modules-enabled/*.conf;": "",
                "access_log off;": f"access_log off;\n{scratch}",
                "/var/log/nginx/ringcast-access.log": str(self.access_log),
                "/var/log/nginx/ringcast-error.log": str(self.error_logs[1]),
                "listen 443 ": f"listen 127.0.0.1:{self.port} ",
                "listen [::]:443 ssl http2 ": f"listen 127.0.0.1:{self.plain_port} ",
                "/etc/nginx/ringcast/fullchain.pem": str(self.certificate.chain),
                "/etc/nginx/ringcast/privkey.pem": str(self.certificate.key),
                SERVERS: servers,
            }
        )

    def change(self, changes: Mapping[str, str]) -> None:
        """Replace texts in its files; what runs does not notice before `reload`."""
        files = list(self.folder.rglob("*.conf"))
        for old, new in changes.items():
            count = sum(path.read_text().count(old) for path in files)
            assert count == 1, f"{old!r} is there {count} times"
            for path in files:
                path.write_text(path.read_text().replace(old, new))

    # --- its life

    def _command(self, *arguments: str) -> list[str]:
        stderr = str(self.error_logs[2])
        return ["nginx", "-p", str(self.folder), "-c", str(self.folder / "nginx.conf"), "-e", stderr, *arguments]

    def check(self) -> subprocess.CompletedProcess[str]:
        """`nginx -t`."""
        return subprocess.run(self._command("-t"), capture_output=True, text=True, timeout=20, check=False)

    def start(self) -> Nginx:
        """Start it and wait until it accepts."""
        with self.error_logs[2].open("ab") as log:
            self.process = subprocess.Popen(
                self._command("-g", "daemon off;"), stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        wait_until(self._accepts, 20, f"nginx (see {self.folder})")
        self._generations.append(self.workers())
        return self

    def _accepts(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"nginx ended: {self.errors()}"
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return len(self.workers()) == WORKERS

    def workers(self) -> set[int]:
        """Ids of the workers, old ones that are on their way out included."""
        assert self.process is not None
        return {child.pid for child in psutil.Process(self.process.pid).children()}

    def generations(self) -> int:
        """Of how many reloads (and the start) there are workers, those on their way out included. Workers that none of
        these is known to have started are one more."""
        alive = self.workers()
        strangers = alive.difference(*self._generations)
        return sum(not alive.isdisjoint(one) for one in self._generations) + bool(strangers)

    def reload(self) -> set[int]:
        """`nginx -s reload`, and wait until new workers alone accept; the old ones, which may stay for a while."""
        assert self.process is not None
        old = self.workers()
        self.process.send_signal(signal.SIGHUP)
        wait_until(lambda: len(self.workers() - old) == WORKERS, 20, "new workers")
        self._generations.append(self.workers() - old)
        wait_until(lambda: all(_leaving(worker) for worker in old), 20, "old workers on their way out")
        return old

    def stop(self, seconds: float = 20) -> int:
        """SIGTERM, which ends its workers too; the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    # --- what clients and operators see

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def connect(self, seconds: float = 10) -> ssl.SSLSocket:
        """A TLS connection for HTTP/1.1."""
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=seconds)
        try:
            return self.context.wrap_socket(plain, server_hostname="localhost")
        except BaseException:
            plain.close()
            raise

    def stream(self, path: str, *, seconds: float = 10, **headers: str | None) -> Stream:
        """A stream over TLS and HTTP/1.1."""
        connection = self.connect(seconds)
        try:
            return Stream(self.port, path, seconds=seconds, connection=connection, **headers)
        except BaseException:
            connection.close()
            raise

    def get(self, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers (lower case) and body of a GET. Underscores in header names become hyphens."""
        return self.request("GET", path, **headers)

    def request(
        self, method: str, path: str, body: bytes | str | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """One request on a connection of its own."""
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=15, context=self.context)
        try:
            connection.request(method, path, body, {key.replace("_", "-"): value for key, value in headers.items()})
            answer = connection.getresponse()
            return answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def publish(self, topic: str, data: str) -> str:
        """Publish one event on channel main; its id."""
        body = json.dumps({"topic": topic, "data": data})
        status, _, answer = self.request("POST", "/channels/main/events", body, Content_Type="application/json")
        assert status == 200, answer
        [event_id] = json.loads(answer)["ids"]
        return str(event_id)

    def access(self) -> list[dict[str, Any]]:
        """The lines of the access log so far: one for each request that has ended, a second later at most."""
        return [json.loads(line) for line in self.access_log.read_text().splitlines()]

    def errors(self) -> str:
        """What is in all error logs."""
        return "".join(path.read_text(errors="replace") for path in self.error_logs if path.exists())


def _leaving(worker: int) -> bool:
    """True for a worker that is gone or accepts nothing any more: it says so in its title."""
    try:
        return "is shutting down" in " ".join(psutil.Process(worker).cmdline())
    except psutil.NoSuchProcess:
        return True
