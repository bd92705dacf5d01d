"""How many files and sockets a server holds, once the connections that were closed on this side are gone on the other.

Reads /proc. What the kernel lists for the server's port tells when that is; the count then tells what is left behind.
"""

from __future__ import annotations

import os
from pathlib import Path

from tests.harness.process import Node, wait_until

ESTABLISHED, CLOSE_WAIT = "01", "08"


def descriptors(node: Node) -> int:
    """The number of files and sockets that the server holds now."""
    return len(os.listdir(f"/proc/{node.pid}/fd"))


def connections(node: Node) -> int:
    """The number of connections that the server has not closed, whether or not their peer has."""
    port = f":{node.port:04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(line[1].endswith(port) and line[3] in (ESTABLISHED, CLOSE_WAIT) for line in lines)


def descriptors_with(node: Node, held: int) -> int:
    """The number of descriptors when the server holds so many connections, those on this side that are open."""
    wait_until(lambda: connections(node) == held, 10, f"{held} connections, not {connections(node)},")
    return descriptors(node)
