"""A link into another network that is slow and loses packets, as a bad radio link does.

Two TUN devices and a thread between them that carries each packet after a time of its own, or never; so packets also
overtake each other. It does what the kernel's `netem` does, also on a kernel that was built without it, and draws its
lots from a seed.
"""

from __future__ import annotations

import fcntl
import heapq
import itertools
import os
import random
import select
import struct
import threading
import time

from tests.harness.namespaces import INNER, Network, run, take_place

TUNSETIFF = 0x400454CA
IFF_TUN_NO_PI = 0x1001
PACKET_BYTES = 2048


def _tun(name: str) -> int:
    """A descriptor that gives and takes the packets of a new device. Raises OSError if the name is taken."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN_NO_PI))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


class SlowLink:
    """Leads from here (`outer`) into a network (`inner`). `worsen` makes it bad, `heal` good again."""

    def __init__(self, network: Network) -> None:
        self.network = network
        with network.entered():
            theirs = _tun(INNER)
        self._ends = {theirs: theirs}
        name, self.outer, self.inner = take_place(self._made)
        run("ip", "addr", "add", self.outer, "peer", self.inner, "dev", name)
        run("ip", "link", "set", name, "up")
        network.run("ip", "addr", "add", self.inner, "peer", self.outer, "dev", INNER)
        network.run("ip", "link", "set", INNER, "up")
        self._delay = (0.0, 0.0)
        self._loss = 0.0
        self._chance = random.Random(0)
        self.carried = self.lost = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._thread.start()

    def _made(self, name: str) -> bool:
        try:
            ours = _tun(name)
        except OSError:
            return False
        [theirs] = self._ends
        self._ends = {ours: theirs, theirs: ours}
        return True

    def worsen(self, *, delay_seconds: tuple[float, float], loss: float, seed: int) -> None:
        """From now on each packet takes a time between these, each way, and this share of them is lost."""
        self._chance = random.Random(seed)
        self._delay, self._loss = delay_seconds, loss

    def heal(self) -> None:
        self._delay, self._loss = (0.0, 0.0), 0.0

    def cut_off(self) -> None:
        """Take it away."""
        self._over.set()
        self._thread.join(10)
        for end in self._ends:
            os.close(end)

    def _carry(self) -> None:
        under_way: list[tuple[float, int, int, bytes]] = []
        numbers = itertools.count()
        poll = select.poll()
        for end in self._ends:
            poll.register(end, select.POLLIN)
        while not self._over.is_set():
            wait = min(0.1, max(0.0, under_way[0][0] - time.monotonic())) if under_way else 0.1
            for end, _ in poll.poll(wait * 1000):
                packet = os.read(end, PACKET_BYTES)
                if self._chance.random() < self._loss:
                    self.lost += 1
                    continue
                due = time.monotonic() + self._chance.uniform(*self._delay)
                heapq.heappush(under_way, (due, next(numbers), self._ends[end], packet))
            while under_way and under_way[0][0] <= time.monotonic():
                *_, end, packet = heapq.heappop(under_way)
                os.write(end, packet)
                self.carried += 1
