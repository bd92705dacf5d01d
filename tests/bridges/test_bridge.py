"""What all bridges share: the way into the logs, a life from connection to connection, what they say of themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

import pytest
import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from bridges import bridge as bridge_module
from bridges.bridge import Bridge, Publishing, SourceLost, Taken, Waits, first_of, metrics
from bridges.inflow import BATCH_MESSAGES, InflowBridge
from bridges.mapping import Mapping, Message, Publication
from server.event import Event
from server.relay.protocol import RelayUnavailable
from tests.bridges.conftest import until
from tests.bridges.recording_hub import TOO_LARGE, RecordingHub
from tests.server.relay.bench import run

PLAIN = Mapping("*", channel="main", topics=["t"])


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge_module.Waits, "next", lambda self: 0.001)


def hub() -> Any:
    return RecordingHub()


def publication(data: str, key: str | None = None, channel: str = "main") -> Publication:
    return Publication(channel, Event(("t",), data), key)


def taken(data: str, own_id: str | None = None, *mappings: Mapping) -> Taken:
    return Taken(Message("s", data.encode(), id=own_id), mappings or (PLAIN,))


def said(lines: list[Any], event: str) -> list[Any]:
    return [line for line in lines if line["event"] == event]


class Scripted(Bridge):
    """Does what it is told at each `follow`."""

    kind: ClassVar[str] = "scripted"

    def __init__(self, name: str, hub: Any, *steps: Callable[[Scripted], Awaitable[None]]) -> None:
        super().__init__(name, hub)
        self.steps = list(steps)

    async def follow(self) -> None:
        await self.steps.pop(0)(self)


async def connect_and_break(bridge: Scripted) -> None:
    bridge.found()
    raise SourceLost("the source broke")


async def never_connect(bridge: Scripted) -> None:
    raise SourceLost("the source is away")


async def stay(bridge: Scripted) -> None:
    bridge.found()
    await bridge.stopping.wait()


# --- into the logs


def test_what_has_no_key_goes_together_and_what_has_one_goes_alone_in_order() -> None:
    async def main() -> None:
        log = hub()
        publishing = Publishing(log, "b")
        await publishing.publish(
            [
                publication("1"),
                publication("2"),
                publication("3", "k"),
                publication("4"),
                publication("5", None, "other"),
            ]
        )
        assert log.calls == [["1", "2"], ["3"], ["4"], ["5"]]
        assert log.data == ["main 1", "main 2", "main 3", "main 4", "other 5"]
        assert publishing.counts.published == 5

    run(main())


@pytest.mark.parametrize("key", [None, "k"])
def test_an_append_whose_answer_was_lost_is_made_again_and_enters_once(key: str | None) -> None:
    async def main() -> None:
        log = hub()
        log.forget = 2
        publishing = Publishing(log, "b")
        await publishing.publish([publication("1", key)], patience_seconds=10)
        assert log.data == ["main 1"]
        assert (publishing.counts.retries, publishing.counts.repeated) == (2, 1)

    run(main())


def test_a_message_that_comes_again_is_known_by_its_key_however_it_looks() -> None:
    async def main() -> None:
        log = hub()
        publishing = Publishing(log, "b")
        await publishing.publish([publication("as mapped before", "k")])
        await publishing.publish([publication("as mapped now", "k")])
        assert log.data == ["main as mapped before"]
        await Publishing(log, "another bridge").publish([publication("its own", "k")])
        assert log.data == ["main as mapped before", "main its own"]

    run(main())


def test_the_relay_away_for_longer_than_patience_is_the_callers_to_know() -> None:
    async def main() -> None:
        log = hub()
        log.away = True
        publishing = Publishing(log, "b")
        with pytest.raises(RelayUnavailable):
            await publishing.publish([publication("1")], patience_seconds=0.05)
        assert publishing.state == "the log is away"
        log.away = False
        await publishing.publish([publication("2")])
        assert publishing.state == "ok"
        assert log.data == ["main 2"]

    run(main())


def test_what_failed_is_made_again_and_what_did_not_is_not() -> None:
    async def main() -> None:
        log = hub()
        log.refuse = 1
        await Publishing(log, "b").publish([publication("1", "a"), publication("2", "b")], patience_seconds=10)
        assert sorted(log.data) == ["main 1", "main 2"]
        assert log.calls == [["1"], ["2"], ["1"]]

    run(main())


def test_one_that_the_log_refuses_for_good_is_let_go_and_the_others_enter() -> None:
    async def main() -> None:
        log = hub()
        publishing = Publishing(log, "b")
        with structlog.testing.capture_logs() as lines:
            await publishing.publish(
                [
                    publication("1"),
                    publication("x" * (TOO_LARGE + 1)),
                    publication("2"),
                    publication("x" * (TOO_LARGE + 1), "k"),
                    publication("3", None, "full"),
                    publication("defect", "d"),
                    publication("4"),
                ]
            )
        assert sorted(log.data) == ["main 1", "main 2", "main 4"]
        assert publishing.counts.unmappable == 4
        assert len(said(lines, "append_failed")) == 1

    run(main())


def test_no_more_is_on_its_way_than_the_bound() -> None:
    async def main() -> None:
        log = hub()
        log.gate.clear()
        publishing = Publishing(log, "b")
        tasks = [asyncio.ensure_future(publishing.publish([publication(str(n), str(n))])) for n in range(100)]
        await until(lambda: log.under_way == bridge_module.MAX_BATCHES_ON_THEIR_WAY)
        log.gate.set()
        await asyncio.gather(*tasks)
        assert log.most_under_way == bridge_module.MAX_BATCHES_ON_THEIR_WAY
        assert log.data == [f"main {number}" for number in range(100)]

    run(main())


# --- messages


def test_messages_that_do_not_fit_are_counted_told_of_once_a_second_and_let_go() -> None:
    async def main() -> None:
        log = hub()
        picky = Mapping("*", channel="main", topics=["{json.t}"])
        one = Scripted("b", log)
        batch = [
            taken('{"t": "a"}', None, picky),
            *[taken("poison", None, picky)] * 50,
            taken('{"t": "b"}', None, picky),
        ]
        with structlog.testing.capture_logs() as lines:
            assert await one.deliver(batch) == set(range(1, 51))
        assert len(log.data) == 2
        assert (one.counts.received, one.counts.unmappable) == (52, 50)
        [line] = said(lines, "unmappable")
        assert (line["field"], line["reason"]) == ("body", "is not JSON")
        assert "poison" not in str(line)

    run(main())


@pytest.mark.parametrize("message_id", [None, "m"])
def test_what_the_log_refuses_is_said_to_be_let_go_as_what_does_not_fit_is(message_id: str | None) -> None:
    """So that a source with a dead-letter topic gets it back."""

    async def handler(_: Message) -> None:
        pass

    async def main() -> None:
        log = hub()
        one = Scripted("b", log)
        full = Mapping("*", channel="full", topics=["t"], data="{body}")
        texts = ["a", "defect", "b", "x" * (TOO_LARGE + 1), "c"]
        batch = [taken(text, message_id and f"{message_id}{number}") for number, text in enumerate(texts)]
        between = taken("", None, Mapping("*", handler=handler))
        with structlog.testing.capture_logs():
            let_go = await one.deliver([*batch, between, taken("d", "m9", full), taken("e", "m10"), *batch[3:4]])
        assert let_go == {1, 3, 6, 8}
        assert log.data == ["main a", "main b", "main c", "main e"]

    run(main())


def test_whatever_a_function_returns_only_its_message_is_let_go() -> None:
    made: list[Any] = [
        Publication("main", Event(("t",), "1"), 7),  # type: ignore[arg-type]
        Publication(5, Event(("t",), "2")),  # type: ignore[arg-type]
        Publication("main", Event(("t",), "3")),
    ]

    async def main() -> None:
        log = hub()
        one = Scripted("b", log)
        with structlog.testing.capture_logs():
            for publication in made:
                await one.deliver([taken("", None, Mapping("*", function=lambda _, made=publication: [made]))])
        assert log.data == ["main 3"]
        assert one.counts.unmappable == 2

    run(main())


def test_what_two_mappings_make_of_a_message_is_not_taken_for_one_another() -> None:
    async def main() -> None:
        log = hub()
        one = Scripted("b", log)
        other = Mapping("*", channel="main", topics=["u"], data="other")
        for _ in range(2):
            await one.deliver([taken("first", "m", PLAIN, other)])
        assert log.data == ["main first", "main other"]
        assert one.counts.repeated == 2

    run(main())


# --- a bridge's life


def test_a_bridge_goes_from_connection_to_connection_and_says_what_is_wrong() -> None:
    async def main() -> None:
        one = Scripted("b", hub(), never_connect, connect_and_break, never_connect, stay)
        assert one.state == "not connected yet"
        states = []
        task = asyncio.ensure_future(one.run())
        with structlog.testing.capture_logs() as lines:
            while one.steps or one.state != "ok":
                states.append(one.state)
                await asyncio.sleep(0)
        assert "the source is away" in states
        assert one.counts.reconnects == 1
        assert len(said(lines, "source_found")) == 2
        await one.stop()
        await task

    run(main())


def test_a_bridge_says_that_the_relay_is_away_as_long_as_it_is() -> None:
    async def main() -> None:
        log = hub()
        one = Scripted("b", log, stay)
        task = asyncio.ensure_future(one.run())
        with structlog.testing.capture_logs():
            await until(lambda: one.state == "ok")
            log.away = True
            delivering = asyncio.ensure_future(one.deliver([taken("1")], patience_seconds=60))
            await until(lambda: one.state == "the log is away")
            log.away = False
            await delivering
            assert one.state == "ok"
            await one.stop()
            await task

    run(main())


class Poured(InflowBridge):
    """Puts messages in as it is told to."""

    kind: ClassVar[str] = "poured"

    async def follow(self) -> None:
        self.found()
        await self.stopping.wait()


def test_a_stop_waits_for_what_has_come() -> None:
    async def main() -> None:
        log = hub()
        log.gate.clear()
        one = Poured("b", log, 1_000)
        task = asyncio.ensure_future(one.run())
        for number in range(300):
            one.inflow.put(taken(str(number)))
        stopping = asyncio.ensure_future(one.stop())
        await until(lambda: one.stopping.is_set())
        assert not task.done()
        log.gate.set()
        await stopping
        assert log.data == [f"main {number}" for number in range(300)]
        await task

    with structlog.testing.capture_logs():
        run(main())


def test_what_waits_is_bounded_in_number_and_in_bytes_and_the_rest_is_counted() -> None:
    async def main() -> None:
        one = Poured("b", hub(), 10)
        for number in range(15):
            one.inflow.put(taken(str(number)))
        assert (one.counts.lag, one.counts.dropped) == (10, 5)
        assert one.inflow.full.is_set()
        assert not one.inflow.half_empty.is_set()
        large = Poured("l", hub(), 1_000)
        large.inflow._max_bytes = 100
        for _ in range(3):
            large.inflow.put(taken("x" * 40))
        assert (large.counts.lag, large.counts.dropped) == (2, 1)

    run(main())


def test_the_relay_away_and_back_loses_nothing_of_what_waited_and_keeps_its_order() -> None:
    async def main() -> None:
        log = hub()
        log.away = True
        one = Poured("b", log, BATCH_MESSAGES * 5)
        with structlog.testing.capture_logs():
            task = asyncio.ensure_future(one.run())
            for number in range(BATCH_MESSAGES * 6):
                one.inflow.put(taken(str(number)))
            await until(lambda: one.counts.retries > 3)
            assert one.counts.dropped == BATCH_MESSAGES
            log.forget, log.away = 3, False
            await one.inflow.half_empty.wait()
            assert not one.inflow.full.is_set()
            await one.inflow.empty.wait()
            assert log.data == [f"main {number}" for number in range(BATCH_MESSAGES * 5)]
            assert max(map(len, log.calls)) == BATCH_MESSAGES
            await one.stop()
            await task

    run(main())


def test_of_several_works_the_first_that_ends_ends_all_and_an_error_comes_out() -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    async def main() -> None:
        ended = []

        async def work() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                ended.append(True)

        await first_of(work(), asyncio.sleep(0))
        with pytest.raises(ZeroDivisionError):
            await first_of(work(), fail())
        assert ended == [True, True]

    run(main())


def test_metrics_are_one_family_each_for_all_bridges() -> None:
    async def main() -> None:
        every = [Scripted("one", hub()), Scripted("two", hub())]
        every[0].counts.received = 7
        registry = CollectorRegistry()
        registry.register(type("All", (), {"collect": lambda self: metrics(every)})())
        text = generate_latest(registry).decode()
        assert text.count("# TYPE ringcast_bridge_received_total") == 1
        assert 'ringcast_bridge_received_total{bridge="one"} 7.0' in text
        assert 'ringcast_bridge_up{bridge="two"} 0.0' in text

    run(main())


def test_waits_grow_to_a_bound_have_jitter_and_begin_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    waits = Waits(0.1, 5.0)
    several = [waits.next() for _ in range(10)]
    assert all(0.05 * 2**n <= wait <= 0.1 * 2**n for n, wait in enumerate(several[:5]))
    assert all(2.5 <= wait <= 5 for wait in several[6:])
    assert len(set(several)) == 10
    waits.reset()
    assert waits.next() <= 0.1
