"""The install script run into a folder of a test's own, as a package would."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.harness.process import ROOT

UNITS = ROOT / "systemd"
PASSWD = "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/usr/sbin/nologin\n"
GROUP = "root:x:0:\nwww-data:x:33:\n"


class Stage:
    """`folder` stands for `/`. Programs in `tools` go before the machine's."""

    def __init__(self, folder: Path, passwd: str = PASSWD) -> None:
        self.folder = folder / "stage"
        self.tools = folder / "tools"
        self.tools.mkdir()
        (self.folder / "etc").mkdir(parents=True)
        self.write("etc/passwd", passwd)
        self.write("etc/group", GROUP)

    def path(self, name: str) -> Path:
        return self.folder / name

    def read(self, name: str) -> str:
        return self.path(name).read_text()

    def write(self, name: str, text: str) -> None:
        self.path(name).write_text(text)

    def tool(self, name: str, script: str) -> Path:
        """Put a program of the test's own before the machine's."""
        path = self.tools / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    def install(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run the script; what it said."""
        env = {"PATH": f"{self.tools}:{os.environ['PATH']}", "DESTDIR": str(self.folder)} | variables
        command = [str(UNITS / "install"), *arguments]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)

    def installed(self, *arguments: str, **variables: str) -> str:
        """As `install`, which must succeed."""
        done = self.install(*arguments, **variables)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def files(self) -> dict[str, tuple[int, str]]:
        """Mode and content of everything, but for the backups and the lock of the user database."""
        found = {}
        for path in sorted(self.folder.rglob("*")):
            if path.is_file() and not path.name.endswith("-") and path.name not in (".pwd.lock", "shadow", "gshadow"):
                found[str(path.relative_to(self.folder))] = (path.stat().st_mode & 0o7777, path.read_text())
        return found
