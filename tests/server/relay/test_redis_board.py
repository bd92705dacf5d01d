"""The board over a real Redis: who begins late has read what is on it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.redis import RedisServer
from tests.server.relay.test_redis import Seat, with_seats


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path).start()
    yield server
    server.stop()


def test_a_node_that_begins_has_every_notice_before_anything_is_open(redis: RedisServer) -> None:
    """Else whoever was revoked would find it open, for as long as Redis takes to answer."""

    async def check(nodes: list[Seat]) -> None:
        await nodes[0].relay.board.post("first")
        await nodes[0].relay.board.post("second")
        late, heard = Seat(redis), list[bytes]()
        late.relay.board.on_notice = heard.append
        await late.relay.start(late.delivered, lambda *turn: late.turns.append(turn))
        try:
            assert heard == [b"first", b"second"]
        finally:
            await late.relay.close()

    with_seats(redis, 1, check)


def test_notices_that_are_put_up_at_once_are_each_heard_once(redis: RedisServer) -> None:
    """Each post reads on, and each notice means work for every reader."""

    async def check(nodes: list[Seat]) -> None:
        board, heard = nodes[0].relay.board, list[bytes]()
        for number in range(30):
            await board.post(f"before {number}")
        board.on_notice = heard.append
        await asyncio.gather(*[board.post(f"at once {number}") for number in range(20)])
        assert sorted(heard) == sorted(b"at once %d" % number for number in range(20))

    with_seats(redis, 1, check)
