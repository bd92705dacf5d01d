"""Statistics: the figures of /stats and /metrics are those of the parts, under the names that dashboards know."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from server.endings import DRAINING
from server.statistics import DURATION_BOUNDS, Durations, Rates, exposition, resident_bytes, stats
from tests.server.engine import SMALLEST_BUFFER, until
from tests.server.house import House, with_house


def samples(house: House) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample by its name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(exposition(house.node).decode())
        for sample in family.samples
    }


async def lived_in(house: House) -> None:
    """Two readers here, one gone, one resumed, three events."""
    first = house.publish("1")[0]
    house.open()
    gone = house.open()
    house.publish("2", "3")
    await house.settled()
    house.node.broadcaster.close(house.readers[1], DRAINING)
    gone.read_all()
    house.open(first)
    await house.settled()
    house.node.admission.draining = True
    house.node.admission.refusal("192.0.2.1", "")


def test_stats_are_what_happened() -> None:
    async def check(house: House) -> None:
        await lived_in(house)
        facts: Any = stats(house.node)
        assert json.loads(json.dumps(facts)) == facts
        assert facts["connections"] == {
            "total": 2, "maximum": 100, "by_channel": {"main": 2}, "addresses": 1, "stalled": 0,
        }  # fmt: skip
        totals = facts["totals"]
        assert (totals["published"], totals["delivered"], totals["replayed"]) == (3, 4, 2)
        assert (totals["opened"], totals["resumed"], totals["gaps"], totals["dropped"]) == (3, 1, 0, 0)
        assert (totals["refused"], totals["ended"]) == ({"draining": 1}, {"draining": 1})
        main = facts["channels"]["main"]
        assert main["epoch"] == house.channel.epoch
        assert (main["readers"], main["feeds"], main["retained_events"], main["published"]) == (2, 1, 3, 3)
        assert main["retained_bytes"] == house.channel.log.bytes
        assert facts["relay"]["ok"] is True
        assert facts["process"]["resident_bytes"] > 1 << 20

    with_house(check)


def test_stats_tell_of_readers_that_are_behind() -> None:
    async def check(house: House) -> None:
        house.open(buffer_bytes=SMALLEST_BUFFER)
        for _ in range(20):
            house.publish("x" * 1000)
            await house.settled()
        await until(lambda: house.node.broadcaster.stalled)
        facts: Any = stats(house.node)
        assert facts["connections"]["stalled"] == 1
        assert facts["channels"]["main"]["lag_events"] > 0

    with_house(check)


def test_tasks_are_those_of_the_loop_and_streams_have_none() -> None:
    async def check(house: House) -> None:
        def told() -> list[object]:
            facts: Any = stats(house.node)
            return [facts["process"]["tasks"], samples(house)["ringcast_tasks", ()]]

        before = len(asyncio.all_tasks())
        assert told() == [before, before]
        for _ in range(20):
            house.open()
        await house.settled()
        assert told() == [before, before]
        left_behind = [asyncio.create_task(asyncio.Event().wait()) for _ in range(3)]
        assert told() == [before + 3, before + 3]
        for task in left_behind:
            task.cancel()
        await asyncio.wait(left_behind)
        assert told() == [before, before]

    with_house(check)


def test_nothing_in_the_figures_names_a_topic_a_subject_or_an_address() -> None:
    async def check(house: House) -> None:
        house.publish("x", topic="secret-topic")
        house.open(subject="secret-subject", remote="203.0.113.77")
        for text in (json.dumps(stats(house.node)), exposition(house.node).decode()):
            assert "secret" not in text
            assert "203.0.113.77" not in text

    with_house(check)


def test_metrics_are_what_happened() -> None:
    async def check(house: House) -> None:
        await lived_in(house)
        found = samples(house)
        main = (("channel", "main"),)
        expected = {
            ("ringcast_connections", main): 2,
            ("ringcast_feeds", main): 1,
            ("ringcast_events_published_total", main): 3,
            ("ringcast_retained_events", main): 3,
            ("ringcast_events_delivered_total", ()): 4,
            ("ringcast_events_replayed_total", ()): 2,
            ("ringcast_connections_opened_total", ()): 3,
            ("ringcast_connections_resumed_total", ()): 1,
            ("ringcast_connections_maximum", ()): 100,
            ("ringcast_connections_stalled", ()): 0,
            ("ringcast_connections_refused_total", (("code", "draining"),)): 1,
            ("ringcast_connections_ended_total", (("code", "draining"),)): 1,
            ("ringcast_relay_up", ()): 1,
            ("ringcast_gaps_total", ()): 0,
            ("ringcast_connection_seconds_count", ()): 1,
        }
        assert {key: found.get(key) for key in expected} == expected

    with_house(check)


@pytest.mark.parametrize("name", ["ringcast_delivery_seconds", "ringcast_connection_seconds"])
def test_histograms_are_cumulative_and_end_at_their_count(name: str) -> None:
    async def check(house: House) -> None:
        for seconds in (0.0005, 0.02, 3.0, 100.0, 99_999.0):
            house.node.broadcaster.count.observe_latency(seconds)
            house.node.durations.observe(seconds)
        found = samples(house)
        buckets = {dict(labels)["le"]: value for (one, labels), value in found.items() if one == f"{name}_bucket"}
        by_bound = [value for _, value in sorted(buckets.items(), key=lambda pair: float(pair[0]))]
        assert by_bound == sorted(by_bound)
        assert by_bound[-1] == buckets["+Inf"] == found[f"{name}_count", ()] == 5
        assert found[f"{name}_sum", ()] == pytest.approx(100_102.0205)

    with_house(check)


def test_each_family_has_a_help_text_and_a_type() -> None:
    async def check(house: House) -> None:
        for family in text_string_to_metric_families(exposition(house.node).decode()):
            assert family.name.startswith("ringcast_")
            assert family.documentation
            assert family.type in ("gauge", "counter", "histogram")

    with_house(check)


def test_a_duration_is_in_the_first_bucket_whose_bound_it_does_not_pass() -> None:
    durations = Durations()
    for seconds in (0.5, 1.0, 1.1, DURATION_BOUNDS[-1], DURATION_BOUNDS[-1] + 1):
        durations.observe(seconds)
    assert durations.buckets == [2, 1, 0, 0, 0, 0, 1, 1]
    assert (durations.count, durations.sum) == (5, pytest.approx(2.6 + 2 * DURATION_BOUNDS[-1] + 1))


def test_rates_are_differences_over_the_time_that_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.statistics.time.monotonic", lambda: 100.0)
    rates = Rates()
    rates.sample(102.0, 10, 1000, 4)
    assert (rates.published, rates.delivered, rates.opened) == (5.0, 500.0, 2.0)
    rates.sample(102.5, 99, 9999, 99)  # too soon to mean anything
    assert rates.published == 5.0
    rates.sample(104.0, 10, 1000, 4)
    assert (rates.published, rates.delivered, rates.opened) == (0.0, 0.0, 0.0)


def test_memory_is_that_of_this_process() -> None:
    assert 1 << 20 < resident_bytes() < 1 << 36
