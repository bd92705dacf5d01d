"""The figures of `prices` for Prometheus. Owns their names; no label names an item."""

from __future__ import annotations

import time
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from apps.prices.sync import Sync
from apps.prices.tending import Tending
from apps.prices.watch import Watch


def metrics(sync: Sync | None, tending: Tending, watch: Watch) -> Iterator[Metric]:
    """What a scrape gets of one node. The sync's figures are zero where it is another node's turn."""
    yield GaugeMetricFamily("ringcast_prices_items", "Items with a price.", len(watch.known))
    yield GaugeMetricFamily("ringcast_prices_streams", "Streams on this node.", watch.channel.readers)
    yield CounterMetricFamily("ringcast_prices_streams_refused", "Streams beyond the limit.", watch.refused)
    yield CounterMetricFamily("ringcast_prices_rolled_up", "Points that were averaged over.", tending.rolled)
    if sync is None:
        return
    looks = CounterMetricFamily("ringcast_prices_looks", "Looks at the source.", labels=["outcome"])
    for outcome, count in sync.looks.items():
        looks.add_metric([outcome], count)
    yield looks
    yield CounterMetricFamily("ringcast_prices_changes", "Prices that changed.", sync.changes)
    yield CounterMetricFamily("ringcast_prices_unusable", "Entries of answers that were left out.", sync.unusable)
    yield GaugeMetricFamily("ringcast_prices_simulated", "1 if prices are made up.", int(sync.simulated))
    if sync.looked:
        age = max(0.0, time.time() - sync.looked)
        yield GaugeMetricFamily("ringcast_prices_age_seconds", "Time since the last good look.", age)
