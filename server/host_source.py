"""The host source: this machine's own figures, once a second, on channel `host`.

Owns the sampling. Real input for the first minute with the product. Must never hold up the loop: a sample takes about a
millisecond, most of it the count of sockets, which is read from /proc/net/sockstat and not by walking processes.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import time
from dataclasses import dataclass

import psutil
import ujson

from server.event import Event
from server.hub import Hub
from server.logs import get_logger
from server.relay.protocol import RelayUnavailable

CHANNEL = "host"

log = get_logger("host_source")


@dataclass(slots=True)
class Traffic:
    """Bytes over all interfaces at a time, to make rates of."""

    at: float
    sent: int
    received: int


def _traffic() -> Traffic:
    totals = psutil.net_io_counters()
    return Traffic(time.monotonic(), totals.bytes_sent, totals.bytes_recv)


def _sockets() -> dict[str, int]:
    """TCP sockets in use and waiting to time out, from the kernel's own counters."""
    with open("/proc/net/sockstat", encoding="ascii") as file:
        words = next(line for line in file if line.startswith("TCP:")).split()
    facts = dict(zip(words[1::2], words[2::2], strict=True))
    return {"tcp_in_use": int(facts["inuse"]), "tcp_time_wait": int(facts["tw"])}


def sample(before: Traffic) -> tuple[str, Traffic]:
    """One sample as JSON, and the traffic to compare the next with."""
    memory = psutil.virtual_memory()
    traffic = _traffic()
    passed = max(traffic.at - before.at, 0.001)
    facts = {
        "ts": round(time.time(), 3),
        "cpu": {
            "percent": psutil.cpu_percent(),
            "per_core": psutil.cpu_percent(percpu=True),
            "load": [round(x, 2) for x in os.getloadavg()],
        },
        "memory": {
            "percent": memory.percent,
            "used_bytes": memory.total - memory.available,
            "total_bytes": memory.total,
        },
        "network": {
            "sent_per_second": round((traffic.sent - before.sent) / passed),
            "received_per_second": round((traffic.received - before.received) / passed),
        },
        "sockets": _sockets(),
    }
    return ujson.dumps(facts), traffic


async def run(hub: Hub, seconds: float) -> None:
    """Publish a sample every `seconds`, for ever. A log that takes no events is no reason to stop."""
    channel = await hub.open(CHANNEL)
    before = _traffic()
    psutil.cpu_percent()
    psutil.cpu_percent(percpu=True)
    while True:
        await asyncio.sleep(seconds)
        data, before = sample(before)
        try:
            appended = hub.publish(channel, [Event(("machine",), data, "sample")])
            if inspect.isawaitable(appended):
                await appended
        except RelayUnavailable as error:
            log.warning("sample_not_published", reason=error.reason)
