"""Handlers of messages: what they can't take now comes again, what never can be is let go, none stops its source."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import pytest
import structlog
from sqlalchemy.exc import DBAPIError

from bridges import bridge as bridge_module
from bridges.bridge import DEFECT_DELIVERIES, DEFECT_TRIES, Bridge, Defects
from bridges.database import DatabaseUnavailable
from bridges.inflow import InflowBridge
from bridges.mapping import Mapping, Message, Unmappable
from bridges.pubsub import Pusher
from bridges.pubsub_connection import PubSubTarget
from bridges.pubsub_pull import PubSubPull
from bridges.pubsub_push import PubSubPush
from server.relay.protocol import RelayUnavailable
from tests.bridges.google import AUDIENCE, EMAIL, ISSUER
from tests.bridges.test_bridge import Scripted, hub, said, taken
from tests.server.relay.bench import run


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge_module.Waits, "next", lambda self: 0.001)


def test_a_handler_takes_messages_itself_in_their_order_and_again_while_it_can_not() -> None:
    async def main() -> None:
        log = hub()
        seen: list[str] = []
        errors: list[Exception] = [DatabaseUnavailable("away"), RelayUnavailable("away")]

        async def handler(message: Message) -> None:
            assert log.data == ["main before"]
            if errors:
                raise errors.pop()
            seen.append(message.text())

        one = Scripted("b", log)
        handled = Mapping("*", handler=handler)
        await one.deliver([taken("before"), taken("1", None, handled), taken("2", None, handled)], patience_seconds=10)
        assert seen == ["1", "2"]
        assert one.counts.retries == 2

    run(main())


@pytest.mark.parametrize(
    ("error", "raised"),
    [(Unmappable("f", "r"), False), (ZeroDivisionError(), False), (DatabaseUnavailable("away"), True)],
)
def test_what_a_handler_can_never_take_is_let_go_and_what_it_can_not_now_comes_later(
    error: Exception, raised: bool
) -> None:
    async def handler(message: Message) -> None:
        raise error

    async def main() -> None:
        one = Scripted("b", hub())
        with structlog.testing.capture_logs():
            if raised:
                with pytest.raises(RelayUnavailable, match="away"):
                    await one.deliver([taken("1", None, Mapping("*", handler=handler))])
            else:
                assert await one.deliver([taken("1", None, Mapping("*", handler=handler))]) == {0}

    run(main())


async def in_vain(message: Message) -> None:
    raise ZeroDivisionError


def test_what_a_handler_raises_once_and_should_not_costs_no_message() -> None:
    async def main() -> None:
        errors: list[Exception] = [ZeroDivisionError(), KeyError("a")]
        seen: list[str] = []

        async def handler(message: Message) -> None:
            if errors:
                raise errors.pop()
            seen.append(message.text())

        one = Scripted("b", hub())
        assert await one.deliver([taken("1", None, Mapping("*", handler=handler))], patience_seconds=10) == set()
        assert seen == ["1"]
        assert (one.counts.retries, one.counts.unmappable) == (2, 0)

    run(main())


def test_a_message_at_which_a_handler_always_raises_comes_again_a_few_times_and_is_let_go() -> None:
    """What was acknowledged at the first would be lost; what is never acknowledged would hold up what is behind it."""

    async def main() -> None:
        log = hub()
        one = Scripted("b", log)
        poisoned = [taken("poison", "1", Mapping("*", handler=in_vain)), taken("behind", "2")]
        with structlog.testing.capture_logs() as lines:
            for _ in range(DEFECT_DELIVERIES - 1):
                with pytest.raises(RelayUnavailable, match="the handler raised ZeroDivisionError"):
                    await one.deliver(poisoned, patience_seconds=10)
            assert one.counts.unmappable == 0
            assert await one.deliver(poisoned, patience_seconds=10) == {0}
        assert log.data == ["main behind"]
        assert len(said(lines, "handler_failed")) == DEFECT_DELIVERIES
        assert [line["field"] for line in said(lines, "unmappable")] == ["handler"]

    run(main())


def test_what_a_source_will_not_give_again_is_let_go_at_once_where_a_handler_always_raises() -> None:
    """Core NATS and Redis pub/sub, whose messages may have ids, and what has none."""

    async def main() -> None:
        class Inflowing(InflowBridge):
            kind: ClassVar[str] = "inflowing"

            async def follow(self) -> None: ...

        with structlog.testing.capture_logs():
            for one, own_id in ((Inflowing("b", hub(), 10), "1"), (Scripted("b", hub()), None)):
                assert await one.deliver([taken("1", own_id, Mapping("*", handler=in_vain))], patience_seconds=10) == {
                    0
                }
                assert one.counts.retries == DEFECT_TRIES - 1

    run(main())


def pulled(**options: bool) -> Bridge:
    return PubSubPull("b", hub(), PubSubTarget("http://127.0.0.1:1"), {}, **options)


def pushed(**options: bool) -> Bridge:
    return PubSubPush("b", hub(), {}, Pusher(AUDIENCE, EMAIL, ISSUER, "http://127.0.0.1:1/keys"), **options)


@pytest.mark.parametrize("made", [pulled, pushed])
def test_a_dead_letter_topic_gets_at_once_what_a_handler_always_raises_at(made: Callable[..., Bridge]) -> None:
    """It counts how often a message comes, for those too that came with it. Without one, they come again."""

    async def main() -> None:
        batch = [taken("1", "1", Mapping("*", handler=in_vain))]
        with structlog.testing.capture_logs():
            assert await made(dead_letter=True).deliver(batch, patience_seconds=10) == {0}
            with pytest.raises(RelayUnavailable):
                await made().deliver(batch, patience_seconds=10)

    run(main())


def test_values_that_a_database_will_never_take_are_let_go_at_once() -> None:
    class OfValues(Exception):
        sqlstate = "22021"

    async def handler(message: Message) -> None:
        raise DBAPIError("insert", None, OfValues())

    async def main() -> None:
        one = Scripted("b", hub())
        with structlog.testing.capture_logs() as lines:
            assert await one.deliver([taken("1", "1", Mapping("*", handler=handler))], patience_seconds=10) == {0}
        assert one.counts.retries == 0
        assert [(line["event"], line["field"]) for line in lines] == [("unmappable", "message")]

    run(main())


def test_of_messages_at_which_handlers_raise_only_so_many_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge_module, "MAX_DEFECTS", 2)
    defects = Defects(2)
    one, two, three = (Message("s", b"", id=name) for name in "123")
    assert [defects.is_hopeless(message) for message in (one, two, three)] == [False] * 3
    assert not defects.is_hopeless(one)  # forgotten; and two with it
    assert not defects.is_hopeless(two)
    assert defects.is_hopeless(one) and defects.is_hopeless(two)
