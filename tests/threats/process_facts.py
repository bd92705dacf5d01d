"""What the operating system says about a running server: memory, CPU time, descriptors. Reads /proc; knows nothing of
the server.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def rss_bytes(pid: int) -> int:
    """Memory in use by the process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(pid: int) -> float:
    """CPU time that the process has used, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def descriptors(pid: int) -> set[int]:
    """The numbers of the open files and sockets."""
    return {int(name) for name in os.listdir(f"/proc/{pid}/fd")}


def cpu_share(pid: int, seconds: float) -> float:
    """The share of one core that the process uses over the next `seconds`."""
    before, begin = cpu_seconds(pid), time.monotonic()
    time.sleep(seconds)  # what is measured
    return (cpu_seconds(pid) - before) / (time.monotonic() - begin)
