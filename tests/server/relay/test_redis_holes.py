"""Holes in a split log: what of a shard was dropped before the node read it is declared once, however it is read on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from server.event import Event
from server.relay import redis_tail
from server.relay.protocol import Retention
from server.relay.redis_log import RedisLog
from tests.harness.redis import RedisServer
from tests.server.relay.bench import UNBOUNDED
from tests.server.relay.test_redis_shards import OF, SHARDS, Seat, until, with_seats

KEPT = 40


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path).start()
    yield server
    server.stop()


def test_a_hole_is_declared_once_however_many_pages_come_before_its_end(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another shard is whole, and has much from before that."""
    monkeypatch.setattr(redis_tail, "ENTRIES_A_PAGE", 5)

    async def check(nodes: list[Seat]) -> None:
        publisher, reader = nodes
        await reader.follow(0, 1)
        for round_number in range(1, 3):
            whole = [Event((OF[1],), f"whole {number}") for number in range(KEPT)]
            part = [Event((OF[0],), f"part {number}") for number in range(2 * KEPT)]
            await publisher.relay.append("main", [*whole, *part], None)
            await until(lambda last=part[-1].data: reader.delivered.data[-1:] == [last])
            assert reader.delivered.data[-2 * KEPT :] == [event.data for event in [*whole, *part[KEPT:]]]
            assert [(turn[1], turn[3].missing) for turn in reader.turns] == [("history", (0,))] * round_number
            reader.delivered.entries.clear()

    with_seats(redis, 2, check, Retention(KEPT * SHARDS, 0, 0))


def test_what_was_declared_of_another_log_says_nothing_of_this_one() -> None:
    log = RedisLog("main", "test", UNBOUNDED, 2)
    log.shards[1].missed = 900
    log.renew("other1", 500)
    assert [shard.missed for shard in log.shards] == [0, 0]
