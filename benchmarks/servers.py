"""The servers of a comparison, each a process of its own, pinned to one core, on free ports, stopped by its id
whatever happens.

Owns: how each server is started, where it listens and how an event is published to it. Knows nothing of what is
measured.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar, Self

ROOT = Path(__file__).parents[1]
START_SECONDS = 20.0
FORM = "application/x-www-form-urlencoded"


class StartError(Exception):
    """A server could not be started, or is not installed."""


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """One server process; `with` starts and stops it."""

    name: ClassVar[str]
    title: ClassVar[str]

    def __init__(
        self,
        folder: Path,
        core: int | None = None,
        *,
        heartbeat_seconds: int = 30,
        jwt_secret: str = "",
        **settings: object,
    ) -> None:
        self.folder, self.core, self.settings = folder, core, settings
        self.heartbeat_seconds, self.jwt_secret = heartbeat_seconds, jwt_secret
        self.port = free_port()
        self.log_path = folder / f"{self.name}-{self.port}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        return {key: value for key, value in os.environ.items() if not key.startswith("RINGCAST_")}

    def options(self) -> dict[str, object]:
        """How the load generator reads from it and publishes to it, one event a request, topic `b`."""
        raise NotImplementedError

    def pids(self) -> list[int]:
        """The processes whose cost counts."""
        assert self.process is not None
        return [self.process.pid]

    def is_ready(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False

    def __enter__(self) -> Self:
        pin = [] if self.core is None else ["taskset", "-c", str(self.core)]
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                pin + self.command(),
                cwd=ROOT,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        end = time.monotonic() + START_SECONDS
        while not self.is_ready():
            if self.process.poll() is not None or time.monotonic() > end:
                self.stop()
                raise StartError(f"{self.name} did not start: {self.log_path.read_text(errors='replace')[-800:]}")
            time.sleep(0.02)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends the process; a server that takes its time over a graceful end is killed."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Ringcast(Server):
    """The server under test. Keywords are its settings; the rest are its defaults."""

    name, title = "ringcast", "Ringcast"
    ndjson: ClassVar[dict[str, object]] = {
        "publish_path": "/channels/main/events",
        "publish_type": "application/x-ndjson",
        "prefix": '{"topic":"b","data":"',
        "suffix": '"}',
        "cursor_after": '"ids":["',
    }

    def command(self) -> list[str]:
        return [sys.executable, "-m", "server", "serve"]

    def environment(self) -> dict[str, str]:
        settings = {
            "host": "127.0.0.1",
            "port": self.port,
            "host_source": False,
            "apps": "none",
            "log_format": "json",
            "log_level": "warning",
            "heartbeat_seconds": self.heartbeat_seconds,
            "drain_seconds": 0,
        } | self.settings
        if self.jwt_secret:
            settings["jwt_secret"] = self.jwt_secret
        return super().environment() | {f"RINGCAST_{key.upper()}": str(value) for key, value in settings.items()}

    def options(self) -> dict[str, object]:
        endpoint = "/.well-known/mercure"
        return {
            "to": f"127.0.0.1:{self.port}",
            "path": f"{endpoint}?topic=b",
            "publish_path": endpoint,
            "publish_type": FORM,
            "prefix": "topic=b&data=",
        }

    def is_ready(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=1)
        try:
            connection.request("GET", "/ready")
            answer = connection.getresponse()
            # A bridge that does not read yet takes no node out of service, but what is published to it now is lost.
            return answer.status == 200 and set(json.loads(answer.read())["checks"].values()) <= {"ok", False}
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


class RedisStore(Server):
    """What the nodes of a cluster share. It keeps nothing on disk."""

    name, title = "redis", "Redis"

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self) -> list[str]:
        program = shutil.which("redis-server")
        if program is None:
            raise StartError("redis-server is not installed")
        return [program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]


class NatsCore(Server):
    """Where messages come from: core NATS, which keeps nothing."""

    name, title = "nats", "NATS"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        program = shutil.which("nats-server", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
        if program is None:
            raise StartError("nats-server is not installed")
        return [program, "--addr", "127.0.0.1", "--port", str(self.port)]


class Floor(Server):
    """The least that the kernel's work costs: benchmarks/load/floor.c. `program` says where it was built."""

    name, title = "floor", "floor (C)"

    def command(self) -> list[str]:
        self.publish_port = free_port()
        return [str(self.settings["program"]), str(self.port), str(self.publish_port), str(self.heartbeat_seconds)]

    def options(self) -> dict[str, object]:
        return {"to": f"127.0.0.1:{self.port}", "publish_to": f"127.0.0.1:{self.publish_port}"}


class Nchan(Server):
    """nginx with the nchan module. The process that counts is the worker."""

    name, title = "nchan", "nchan (nginx, C)"

    def command(self) -> list[str]:
        program = shutil.which("nginx") or "/usr/sbin/nginx"
        if not Path(program).exists():
            raise StartError("nginx is not installed")
        folder = self.folder / f"nchan-{self.port}"
        folder.mkdir()
        config = (Path(__file__).parent / "peers" / "nchan.conf").read_text()
        for mark, value in {"@PORT@": self.port, "@FOLDER@": folder, "@HEARTBEAT@": self.heartbeat_seconds}.items():
            config = config.replace(mark, str(value))
        (folder / "nginx.conf").write_text(config)
        return [program, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")]

    def pids(self) -> list[int]:
        (master,) = super().pids()
        return [int(pid) for pid in Path(f"/proc/{master}/task/{master}/children").read_text().split()]

    def is_ready(self) -> bool:
        # The master listens before it has a worker, and it is the worker that is measured.
        return super().is_ready() and bool(self.pids())

    def options(self) -> dict[str, object]:
        return {"to": f"127.0.0.1:{self.port}", "path": "/events?topic=b", "publish_path": "/publish?topic=b"}


class PythonPeer(Server):
    """A peer of benchmarks/peers that runs in this interpreter's environment."""

    module: ClassVar[str]

    def command(self) -> list[str]:
        words = [
            sys.executable,
            "-m",
            self.module,
            "--port",
            str(self.port),
            "--heartbeat-seconds",
            str(self.heartbeat_seconds),
        ]
        return words + (["--jwt-secret", self.jwt_secret] if self.jwt_secret else [])

    def options(self) -> dict[str, object]:
        return {
            "to": f"127.0.0.1:{self.port}",
            "path": "/events?topic=b",
            "publish_path": "/publish",
            "publish_type": FORM,
            "prefix": "topic=b&data=",
        }


class PlainTornado(PythonPeer):
    name, title, module = "tornado", "plain Tornado", "benchmarks.peers.plain_tornado"


class StarletteSse(PythonPeer):
    name, title, module = "starlette", "sse-starlette, uvicorn", "benchmarks.peers.starlette_sse"


SERVERS: dict[str, type[Server]] = {cls.name: cls for cls in (Ringcast, Floor, Nchan, PlainTornado, StarletteSse)}
