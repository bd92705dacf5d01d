"""A real PostgreSQL on a free port in a scratch folder, started and stopped by its process id.

It does not run as root; a test that does runs it as the user `postgres`, or `nobody`.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from tests.harness.process import free_port, wait_until

_INSTALLED = Path("/usr/lib/postgresql")


def _program(name: str) -> str:
    versions = sorted(_INSTALLED.glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    found = str(versions[-1]) if versions else shutil.which(name)
    assert found, f"{name} is missing: apt-get install postgresql"
    return found


def _user() -> int | None:
    """Whom it runs as, if it may not run as this user."""
    if os.getuid():
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_uid
        except KeyError:
            continue
    raise AssertionError("there is no user that PostgreSQL could run as")


class PostgresServer:
    """One server; `url(name)` creates a database on first use. Nothing is synced to disk: it has to survive no power
    cut, and tests are many."""

    def __init__(self) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="ringcast-postgres-"))
        self._uid = _user()
        if self._uid is not None:
            os.chown(self.folder, self._uid, -1)
        self.process: subprocess.Popen[bytes] | None = None
        self._databases: set[str] = set()
        self._run("initdb", "-D", f"{self.folder}/data", "-U", "ringcast", "-A", "trust", "--no-sync", "-E", "UTF8")

    def _run(self, program: str, *words: str) -> None:
        command = [_program(program), *words]
        done = subprocess.run(command, user=self._uid, cwd=self.folder, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()

    def start(self) -> PostgresServer:
        """Start and wait until it answers."""
        command = [_program("postgres"), "-D", f"{self.folder}/data", "-p", str(self.port), "-k", str(self.folder)]
        for setting in ("listen_addresses=127.0.0.1", "fsync=off", "shared_buffers=16MB", "max_connections=200"):
            command += ["-c", setting]
        with (self.folder / "postgres.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, user=self._uid, cwd=self.folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        wait_until(self._answers, 20, f"PostgreSQL on port {self.port}")
        return self

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "postgres.log").read_text()
        command = [_program("pg_isready"), "-h", "127.0.0.1", "-p", str(self.port), "-q"]
        return subprocess.run(command, check=False).returncode == 0

    def url(self, name: str) -> str:
        """The URL of a database of this name, created if it was not."""
        if name not in self._databases:
            self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "ringcast", name)
            self._databases.add(name)
        return f"postgresql://ringcast@127.0.0.1:{self.port}/{name}"

    def tell(self, *statements: str, database: str = "postgres") -> None:
        """Run statements as who may do everything, each by itself."""
        for statement in statements:
            where = ("-h", "127.0.0.1", "-p", str(self.port), "-U", "ringcast", "-d", database)
            self._run("psql", *where, "-q", "-v", "ON_ERROR_STOP=1", "-c", statement)

    def end_sessions(self, name: str) -> None:
        """End everybody's connections to a database."""
        self.tell(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")

    def set_read_only(self, name: str) -> None:
        """Let nobody write to a database, as on the standby that clients find after a failover."""
        self.tell(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        self.end_sessions(name)

    def set_writable(self, name: str) -> None:
        """Let everybody write who connects from now on; those who are connected stay as they are."""
        self.tell(f"ALTER DATABASE {name} RESET default_transaction_read_only")

    def kill(self) -> None:
        """SIGKILL for the whole server, as if its machine had died; its data stay."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for pid in [self.process.pid, *map(int, children)]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait(10)
        (self.folder / "data" / "postmaster.pid").unlink(missing_ok=True)

    def stop(self) -> None:
        """End it at once and remove what it kept."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(10)
        shutil.rmtree(self.folder, ignore_errors=True)
