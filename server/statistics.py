"""Statistics: what the process did and does, as JSON facts and Prometheus families.

Owns the reading of counters that the parts keep as plain integers, and rates sampled once a second. Must never be on
the way of an event: everything here runs when somebody asks. Labels are channels, codes and bounds, never topics,
subjects or addresses. Cost: nothing per event; a scrape walks the channels and the tasks, not the readers.
"""

from __future__ import annotations

import asyncio
import os
import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric

from server.supervision import died

if TYPE_CHECKING:
    from server.node import Node

DURATION_BOUNDS = (1.0, 10.0, 60.0, 300.0, 900.0, 1800.0, 3600.0)
DOOR_GAUGES = {"waiting": "Sockets whose request is not complete."}
RELAY_GAUGES = {
    "lag_seconds": "How far behind the relay this node is: the age of the oldest mark that has not come back from it.",
    "waiting_events": "Events that wait for the relay.",
}
RELAY_COUNTERS = {
    "tail_connections": "Connections that the relay was followed on, over which it has answered.",
    "turns": "Times that a log was found turned back or gone, and a new epoch begun.",
    "damaged": "Entries that could not be read; each was declared as a gap.",
}
HTTP_GAUGES = {
    "open": "Connections that are no streams, behind the door.",
    "idle": "Those of them that keep nobody waiting.",
}
HTTP_COUNTERS = {
    "evicted": "Idle connections closed to make room for another.",
    "refused": "Connections refused because no other could go for them.",
}
DOOR_COUNTERS = {
    "accepted": "Connections accepted.",
    "published": "Publishes answered at the door.",
    "handed_over": "Connections given to the HTTP server.",
    "timed_out": "Connections closed because their request did not come to an end.",
    "accept_errors": "Times that accepting paused for want of descriptors or memory.",
}
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Durations:
    """Histogram of how long connections lasted, in seconds."""

    __slots__ = ("buckets", "count", "sum")

    def __init__(self) -> None:
        self.buckets = [0] * (len(DURATION_BOUNDS) + 1)
        self.count = 0
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        """One connection ended."""
        self.buckets[bisect_left(DURATION_BOUNDS, seconds)] += 1
        self.count += 1
        self.sum += seconds


class Rates:
    """Differences of running totals over the last second or so."""

    def __init__(self) -> None:
        self._at = time.monotonic()
        self._last = (0, 0, 0)
        self.published = self.delivered = self.opened = 0.0

    def sample(self, now: float, published: int, delivered: int, opened: int) -> None:
        """Called about once a second."""
        passed = now - self._at
        if passed < 0.9:
            return
        before = self._last
        self.published = (published - before[0]) / passed
        self.delivered = (delivered - before[1]) / passed
        self.opened = (opened - before[2]) / passed
        self._at, self._last = now, (published, delivered, opened)


def resident_bytes() -> int:
    """The memory of this process that is in RAM."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * PAGE_BYTES


def tasks() -> int:
    """The tasks of the running loop that are not done. Readers have none: what makes this grow for ever is a leak."""
    return len(asyncio.all_tasks())


def stats(node: Node) -> dict[str, object]:
    """The facts of /stats. To be asked on the node's loop."""
    count = node.broadcaster.count
    channels = node.hub.channels.values()
    return {
        "connections": {
            "total": node.broadcaster.readers,
            "maximum": node.admission.max_connections,
            "by_channel": {channel.name: channel.readers for channel in channels},
            "addresses": node.admission.addresses,
            "stalled": node.broadcaster.stalled,
        },
        "door": node.door_facts(),
        "http": node.http_facts(),
        "rates": {
            "published_per_second": round(node.rates.published, 1),
            "delivered_per_second": round(node.rates.delivered, 1),
            "opened_per_second": round(node.rates.opened, 1),
        },
        "totals": {
            "published": sum(channel.published for channel in channels),
            "delivered": count.delivered,
            "replayed": node.replayer.replayed,
            "writes": count.writes,
            "opened": node.opener.opened,
            "resumed": node.opener.resumed,
            "sweeps": count.sweeps,
            "dropped": count.dropped,
            "gaps": count.gaps,
            "surplus": count.surplus,
            "heartbeats": node.lifetimes.heartbeats,
            "refused": dict(node.admission.refused),
            "publishes_refused": dict(node.publishes_refused),
            "ended": dict(node.ended),
        },
        "channels": {
            channel.name: {
                "epoch": channel.epoch,
                "readers": channel.readers,
                "feeds": len(channel.feeds),
                "retained_events": len(channel.log),
                "retained_bytes": channel.log.bytes,
                "published": channel.published,
                "lag_events": node.broadcaster.lag_of(channel),
                "shards": channel.following.count,
                "shards_followed": channel.following.followed,
            }
            for channel in channels
        },
        "relay": node.relay.state(),
        "process": {
            "uptime_seconds": round(time.monotonic() - node.started, 1),
            "resident_bytes": resident_bytes(),
            "tasks": tasks(),
            "loop_lag_seconds": round(node.loop_lag, 4),
        },
    } | {name: facts() for name, facts in node.more_stats.items()}


class Collector:
    """Reads the node at every scrape."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def collect(self) -> Iterator[Metric]:
        """The metric families."""
        node = self._node
        count = node.broadcaster.count
        yield from self._channels()
        for more in node.more_metrics:
            yield from more()
        yield _gauge("connections_stalled", "Readers whose socket takes no bytes now.", node.broadcaster.stalled)
        yield _gauge(
            "connections_maximum", "Most streaming connections that are admitted.", node.admission.max_connections
        )
        yield from _facts("door", DOOR_GAUGES, DOOR_COUNTERS, node.door_facts())
        yield from _facts("relay", RELAY_GAUGES, RELAY_COUNTERS, node.relay.state())
        yield from _facts("http", HTTP_GAUGES, HTTP_COUNTERS, node.http_facts())
        yield _counter("events_delivered", "Events written to readers' sockets, live.", count.delivered)
        yield _counter("events_replayed", "Events written to readers' sockets, from history.", node.replayer.replayed)
        yield _counter("writes", "Write calls of the sweep; events_delivered per write is the batching.", count.writes)
        yield _counter("connections_opened", "Streams opened.", node.opener.opened)
        yield _counter("connections_resumed", "Streams opened with a cursor that was found.", node.opener.resumed)
        yield _counter("events_dropped", "Events that slow readers did not get; each hole was declared.", count.dropped)
        yield _counter("gaps", "Gaps declared to slow readers.", count.gaps)
        yield _counter("sweeps", "Times that a feed's readers were all brought to its head.", count.sweeps)
        yield _counter("surplus", "Streams ended because bytes came after their request.", count.surplus)
        yield _counter("heartbeats", "Heartbeats written.", node.lifetimes.heartbeats)
        yield _labelled("connections_refused", "Streams refused, by code.", "code", node.admission.refused)
        yield _labelled("publishes_refused", "Publishes refused, by code.", "code", node.publishes_refused)
        yield _labelled("connections_ended", "Streams ended, by code (peer: the client went away).", "code", node.ended)
        yield _labelled("tokens_refused", "Tokens refused, by kind.", "reason", node.tokens_refused)
        yield _labelled("resumes_incomplete", "Streams that began with a gap.", "reason", node.opener.incomplete)
        yield _labelled("tasks_died", "Deaths of lasting tasks; each was started again.", "task", died)
        yield _gauge("ready", "1 if /ready says 200.", int(node.ready))
        yield _gauge("start_time_seconds", "When the process began to serve, in unix seconds.", node.started_at)
        yield _gauge("loop_lag_seconds", "How late the event loop's last tick was.", node.loop_lag)
        yield _gauge("resident_bytes", "Memory of the process in RAM.", resident_bytes())
        yield _gauge("tasks", "Tasks of the event loop; streams have none.", tasks())
        yield _gauge(
            "relay_up",
            "1 if the relay takes events and this node gets them in time.",
            int(bool(node.relay.state()["ok"])),
        )
        latency = list(zip((str(bound) for bound in count.LATENCY_BOUNDS), count.latency_buckets, strict=True))
        yield _histogram(
            "delivery_seconds",
            "How long a feed's readers took, from the first event they lacked, to be all at its head.",
            latency,
            count.latency_count,
            count.latency_sum,
        )
        durations = node.durations
        lasted = list(zip((str(bound) for bound in DURATION_BOUNDS), durations.buckets[:-1], strict=True))
        yield _histogram("connection_seconds", "How long streams lasted.", lasted, durations.count, durations.sum)

    def _channels(self) -> Iterator[Metric]:
        readers = GaugeMetricFamily("ringcast_connections", "Streaming connections, by channel.", labels=["channel"])
        feeds = GaugeMetricFamily("ringcast_feeds", "Distinct selections with readers, by channel.", labels=["channel"])
        published = CounterMetricFamily(
            "ringcast_events_published", "Events taken into the log, by channel.", labels=["channel"]
        )
        retained = GaugeMetricFamily(
            "ringcast_retained_events", "Events in memory for replay, by channel.", labels=["channel"]
        )
        for channel in self._node.hub.channels.values():
            readers.add_metric([channel.name], channel.readers)
            feeds.add_metric([channel.name], len(channel.feeds))
            published.add_metric([channel.name], channel.published)
            retained.add_metric([channel.name], len(channel.log))
        yield from (readers, feeds, published, retained)


def _facts(part: str, gauges: dict[str, str], counters: dict[str, str], facts: Mapping[str, Any]) -> Iterator[Metric]:
    for name, text in gauges.items():
        yield _gauge(f"{part}_{name}", text, facts.get(name, 0))
    for name, text in counters.items():
        yield _counter(f"{part}_{name}", text, facts.get(name, 0))


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"ringcast_{name}", text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"ringcast_{name}", text, value=value)


def _labelled(name: str, text: str, label: str, values: dict[str, int]) -> Metric:
    family = CounterMetricFamily(f"ringcast_{name}", text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _histogram(name: str, text: str, buckets: list[tuple[str, int]], count: int, total: float) -> Metric:
    running, cumulative = 0, []
    for bound, number in buckets:
        running += number
        cumulative.append((bound, float(running)))
    return HistogramMetricFamily(
        f"ringcast_{name}", text, buckets=[*cumulative, ("+Inf", float(count))], sum_value=total
    )


def exposition(node: Node) -> bytes:
    """The Prometheus text format. To be asked on the node's loop."""
    registry = CollectorRegistry()
    registry.register(Collector(node))
    return generate_latest(registry)
