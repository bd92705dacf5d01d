"""The node: the engine's parts, put together, and its life from start to drained.

Owns the construction of the parts and the order in which they start and stop. Must never know of HTTP paths or of the
command line.

Stopping: not ready; no new connections; every reader gets a farewell and a jittered `retry:`, spread over
`drain_seconds`; publishes in flight finish; the relay closes.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from prometheus_client.metrics_core import Metric

from server.admission import Admission
from server.broadcaster import Broadcaster
from server.channel import Policy
from server.endings import DRAINING, Ending
from server.finishing import Finisher
from server.hub import Hub
from server.lifetimes import Lifetimes, leave_slot
from server.logs import get_logger
from server.opening import Opener
from server.reader import Reader
from server.relay.protocol import Relay
from server.replay import Replayer
from server.statistics import Durations, Rates

DRAIN_STEP_SECONDS = 0.05
TENANT_MARK = "tenant "
MAX_TENANTS = 1_000  # the largest ones, in what a node says of itself

log = get_logger("node")


@dataclass(frozen=True, slots=True)
class Limits:
    """The engine's knobs, in the units of the settings of the same names (`max_connections` as derived from the file
    limit)."""

    max_connections: int
    max_connections_per_address: int = 0
    max_connections_per_subject: int = 0
    opens_per_second: float = 0.0
    opens_burst: int = 1000
    slice_ms: float = 4.0
    span_bytes: int = 1 << 18
    backlog_bytes: int = 32 << 20
    max_frame_bytes: int = 1 << 20
    max_channels: int = 256
    write_stall_seconds: float = 30.0
    max_age_jitter: float = 0.2
    retry_min_ms: int = 1000
    retry_max_ms: int = 5000
    shortest_heartbeat_seconds: float = 30.0


class Node:
    """One node's engine. Construct on a running loop."""

    def __init__(self, relay: Relay, policy_of: Callable[[str], Policy], limits: Limits) -> None:
        loop = asyncio.get_running_loop()
        self.started = time.monotonic()
        self.started_at = time.time()
        self.relay = relay
        self.draining = False
        self.loop_lag = 0.0
        self.ended: dict[str, int] = {}
        self.rates = Rates()
        self.durations = Durations()
        self.door_facts: Callable[[], dict[str, int]] = dict
        self.accepting: Callable[[], str] = lambda: "ok"  # or why newcomers have to wait
        self.http_facts: Callable[[], dict[str, int]] = dict
        self.publishes_refused: dict[str, int] = {}
        self.tokens_refused: dict[str, int] = {}
        self.on_tick: list[Callable[[float], None]] = []
        self.admission = Admission(
            time.monotonic,
            max_connections=limits.max_connections,
            per_address=limits.max_connections_per_address,
            per_subject=limits.max_connections_per_subject,
            opens_per_second=limits.opens_per_second,
            opens_burst=limits.opens_burst,
        )
        self.broadcaster = Broadcaster(
            loop,
            self._closed,
            slice_seconds=limits.slice_ms / 1000,
            span_bytes=limits.span_bytes,
            backlog_bytes=limits.backlog_bytes,
        )
        self.hub = Hub(
            relay, self.broadcaster, policy_of, max_frame_bytes=limits.max_frame_bytes, max_channels=limits.max_channels
        )
        self.replayer = Replayer(self.broadcaster, relay.read, relay.mark, relay.floor)
        self.broadcaster.replayer = self.replayer
        self.lifetimes = Lifetimes(
            self.broadcaster,
            relay.mark,
            write_stall_seconds=limits.write_stall_seconds,
            shortest_heartbeat_seconds=limits.shortest_heartbeat_seconds,
            on_tick=self._tick,
        )
        self.opener = Opener(
            self.hub,
            self.broadcaster,
            self.replayer,
            self.lifetimes,
            self.admission,
            retry_ms=(limits.retry_min_ms, limits.retry_max_ms),
            max_age_jitter=limits.max_age_jitter,
        )
        self.finisher = Finisher(self.broadcaster.close)
        self.on_tick.append(self.finisher.tick)
        # What stands beside the engine (applications, bridges) says of itself: a state ("ok" or what is wrong),
        # metrics, facts for the statistics.
        self.checks: dict[str, Callable[[], str]] = {}
        self.more_metrics: list[Callable[[], Iterable[Metric]]] = []
        self.more_stats: dict[str, Callable[[], object]] = {}
        self._second = 0.0

    async def start(self, channels: Sequence[str]) -> None:
        """Open the relay and the given channels, and begin to tick. Raises RelayUnavailable."""
        await self.hub.start(channels)
        self.lifetimes.start()

    def presence(self) -> dict[str, object]:
        """What this node holds, for the others. Looks at every reader."""
        tenants: Counter[str] = Counter()
        placed: Counter[str] = Counter()
        for reader in self.broadcaster.all_readers():
            for mark in reader.marks:
                if mark.startswith(TENANT_MARK):
                    tenant = mark[len(TENANT_MARK) :]
                    tenants[tenant] += 1
                    placed[f"{reader.feed.channel.name} {tenant}"] += 1
        return {
            "connections": self.broadcaster.readers,
            "maximum": self.admission.max_connections,
            "by_channel": {channel.name: channel.readers for channel in self.hub.channels.values()},
            "by_tenant": dict(tenants.most_common(MAX_TENANTS)),
            "by_channel_and_tenant": dict(placed.most_common(MAX_TENANTS)),
            "draining": self.draining,
        }

    def _closed(self, reader: Reader, ending: Ending | None) -> None:
        leave_slot(reader)
        self.admission.leave(reader.address, reader.subject)
        self.durations.observe(time.monotonic() - reader.opened)
        code = ending.code if ending else "peer"
        self.ended[code] = self.ended.get(code, 0) + 1

    def _tick(self, now: float, late: float) -> None:
        self.loop_lag = max(0.0, late)
        for call in self.on_tick:
            call(now)
        if now - self._second < 1.0:
            return
        self._second = now
        published = sum(channel.published for channel in self.hub.channels.values())
        self.rates.sample(now, published, self.broadcaster.count.delivered + self.replayer.replayed, self.opener.opened)
        self.hub.expire()
        self.replayer.forget()

    @property
    def ready(self) -> bool:
        """True if the relay works, newcomers are let in and the node is not draining."""
        return not self.draining and bool(self.relay.state()["ok"]) and self.accepting() == "ok"

    def begin_drain(self) -> None:
        """From now on the node is not ready and admits nobody."""
        self.draining = True
        self.admission.draining = True

    async def drain(self, seconds: float) -> None:
        """Say goodbye to every reader, spread evenly over `seconds`."""
        readers = self.broadcaster.all_readers()
        log.info("draining", connections=len(readers), seconds=seconds)
        steps = max(1, int(seconds / DRAIN_STEP_SECONDS)) if readers else 1
        for step in range(steps):
            first, stop = -(-len(readers) * step // steps), -(-len(readers) * (step + 1) // steps)  # rounded up
            for reader in readers[first:stop]:
                self.broadcaster.close(reader, DRAINING)
            if stop < len(readers):
                await asyncio.sleep(DRAIN_STEP_SECONDS)
        for reader in self.broadcaster.all_readers():
            self.broadcaster.close(reader, DRAINING)

    async def stop(self) -> None:
        """End what is left and close the relay."""
        self.lifetimes.stop()
        self.broadcaster.shut()
        await self.relay.close()
