"""The facts of the machine and the versions that a result belongs to."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

PACKAGES = ("tornado", "uvloop", "ujson", "httptools", "starlette", "sse-starlette", "uvicorn")


def facts() -> dict[str, str]:
    """Name and value, in the order in which they are shown."""
    found = {
        "processor": _first(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo")) or platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": _memory(),
        "kernel": platform.release(),
        "files a process": _file_limit(),
        "Python": platform.python_version(),
        "nginx": _nginx(),
        "nchan": _nchan(),
        "compiler": _line([os.environ.get("CC", "cc"), "--version"]),
    }
    return found | {package: _version(package) for package in PACKAGES}


def _first(pattern: str, path: Path) -> str:
    match = re.search(pattern, path.read_text()) if path.exists() else None
    return " ".join(match.group(1).split()) if match else ""


def _memory() -> str:
    kilobytes = _first(r"MemTotal:\s*(\d+)", Path("/proc/meminfo"))
    return f"{int(kilobytes) / 2**20:.0f} GiB" if kilobytes else ""


def _file_limit() -> str:
    return _first(r"Max open files\s+\d+\s+(\d+)", Path("/proc/self/limits"))


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _line(command: list[str]) -> str:
    if shutil.which(command[0]) is None:
        return "not installed"
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).strip().partition("\n")[0]


def _nginx() -> str:
    return _line([shutil.which("nginx") or "/usr/sbin/nginx", "-v"]).removeprefix("nginx version: nginx/")


def _nchan() -> str:
    return _line(["dpkg-query", "-W", "-f=${Version}", "libnginx-mod-nchan"])
