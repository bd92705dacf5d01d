"""The figures of `monitors` for Prometheus. Owns their names; no label names a tenant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from apps.monitors.broadcasts import Broadcasts
from apps.monitors.source import Simulation
from apps.monitors.teller import Teller
from apps.monitors.watch import Watch
from apps.monitors.workers import Workers


def metrics(
    broadcasts: Broadcasts, teller: Teller, watch: Watch, workers: Workers, simulation: Simulation | None
) -> Iterator[Metric]:
    """What a scrape gets of one node. What the worker says of itself is the same on every node."""
    yield _counts("checks", "Checks that this node was told of.", "outcome", broadcasts.outcomes)
    yield _counts("broadcasts", "Broadcasts that were taken.", "type", broadcasts.taken)
    yield _counts("broadcasts_refused", "Broadcasts that were not.", "reason", broadcasts.refused)
    yield CounterMetricFamily(
        "ringcast_monitors_broadcasts_repeated", "Broadcasts that had been taken before.", broadcasts.replayed
    )
    told = "Events that this node has told of by itself: changes, and what waited before them."
    yield CounterMetricFamily("ringcast_monitors_told", told, teller.told)
    yield _gauge("told_oldest_seconds", "How long the oldest change waits to be told.", teller.oldest_seconds)
    yield _gauge("streams", "Streams on this node.", watch.channel.readers)
    yield _gauge("tenants", "Tenants with streams on this node.", watch.tenants())
    yield _counts("streams_refused", "Streams refused for a tenant's limit.", "reason", watch.refused)
    if simulation is not None:
        yield CounterMetricFamily("ringcast_monitors_simulated", "Checks that this node made up.", simulation.made)
    yield _gauge("worker_up", "1 if a worker is at work.", int(workers.present))
    if workers.present:
        facts = workers.facts
        yield _gauge("worker_queue", "Results that wait to be stored or sent.", facts["queue"])
        yield CounterMetricFamily(
            "ringcast_monitors_worker_dropped", "Results that were dropped since its start.", facts["dropped"]
        )
        yield _counts("worker_checks", "Checks since its start.", "outcome", facts["checks"])


def _gauge(name: str, meaning: str, value: float) -> Metric:
    return GaugeMetricFamily(f"ringcast_monitors_{name}", meaning, value)


def _counts(name: str, meaning: str, label: str, counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(f"ringcast_monitors_{name}", meaning, labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family
