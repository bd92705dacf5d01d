"""The host source: one sample a second of what this machine does, as an event on its channel."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
import structlog

import server.host_source
from server.host_source import CHANNEL, Traffic, run, sample
from server.relay.memory import MemoryRelay
from server.relay.protocol import RelayUnavailable
from tests.server.house import House, with_house


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[float]]:
    """`pauses(3)`: nothing is waited for, and the fourth wait ends the work. The waits that were asked for."""

    def allow(count: int) -> list[float]:
        asked: list[float] = []

        async def sleep(seconds: float) -> None:
            if len(asked) == count:
                raise asyncio.CancelledError
            asked.append(seconds)

        monkeypatch.setattr(server.host_source.asyncio, "sleep", sleep)
        return asked

    return allow


async def run_until_cancelled(house: House) -> None:
    with pytest.raises(asyncio.CancelledError):
        await run(house.node.hub, 0.5)


def test_a_sample_holds_figures_of_this_machine() -> None:
    text, traffic = sample(Traffic(0.0, 0, 0))
    facts = json.loads(text)
    assert set(facts) == {"ts", "cpu", "memory", "network", "sockets"}
    assert 0 <= facts["cpu"]["percent"] <= 100
    assert len(facts["cpu"]["load"]) == 3
    assert 0 < facts["memory"]["used_bytes"] < facts["memory"]["total_bytes"]
    assert facts["sockets"]["tcp_in_use"] >= 0
    assert traffic.at > 0


def test_traffic_is_a_rate_over_the_time_between_two_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.host_source, "_traffic", lambda: Traffic(12.0, 5000, 300))
    facts = json.loads(sample(Traffic(10.0, 1000, 100))[0])
    assert facts["network"] == {"sent_per_second": 2000, "received_per_second": 100}
    monkeypatch.setattr(server.host_source, "_traffic", lambda: Traffic(10.0, 1000, 100))
    facts = json.loads(sample(Traffic(10.0, 1000, 100))[0])  # two samples at one moment
    assert facts["network"] == {"sent_per_second": 0, "received_per_second": 0}


def test_a_sample_is_published_at_every_interval(pauses: Callable[[int], list[float]]) -> None:
    async def check(house: House) -> None:
        asked = pauses(3)
        await run_until_cancelled(house)
        assert asked == [0.5] * 3
        channel = house.node.hub.channels[CHANNEL]
        events = [kept.event for kept in channel.log.after(0, 9)]
        assert len(events) == 3
        assert {(event.topics, event.type, event.private) for event in events} == {(("machine",), "sample", False)}
        assert all(json.loads(event.data)["ts"] > 1e9 for event in events)

    with_house(check)


def test_a_log_that_takes_no_events_is_told_of_and_tried_again(
    pauses: Callable[[int], list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check(house: House) -> None:
        await house.node.hub.open(CHANNEL)
        append = MemoryRelay.append_now
        attempts: list[str] = []

        def failing(self: MemoryRelay, channel: str, *rest: Any) -> Any:
            attempts.append(channel)
            if len(attempts) == 1:
                raise RelayUnavailable("no disk")
            return append(self, channel, *rest)

        monkeypatch.setattr(house.node.hub, "_append_now", failing.__get__(house.node.relay))
        pauses(2)
        with structlog.testing.capture_logs() as lines:
            await run_until_cancelled(house)
        assert [(line["event"], line["reason"]) for line in lines] == [("sample_not_published", "no disk")]
        assert house.node.hub.channels[CHANNEL].published == 1

    with_house(check)
