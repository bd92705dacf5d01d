"""Reads from a real Redis in pages: bounded whatever the sizes are, and whole whatever happens between two of them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from ringcast import RedisPublisher
from server.event import Event
from server.relay import redis_reads, redis_tail
from server.relay.protocol import RelayUnavailable, Retention
from server.relay.redis_client import script
from server.relay.redis_entries import Raw, pack
from server.relay.redis_pages import (
    LEAST_PAGE_BYTES,
    PAGE_BYTES,
    QUICK_PAGES,
    SLICE_BYTES,
    SLICE_ENTRIES,
    PageSize,
    slices,
)
from server.shards import shards_of
from tests.harness.redis import RedisServer
from tests.server.relay.bench import UNBOUNDED, event, run
from tests.server.relay.test_redis import Seat, seats, until, with_seats

LARGE = 100_000
TOPICS_OF_TWO = [next(topic for topic in map(str, range(99)) if shards_of((topic,), 2) == (n,)) for n in range(2)]
SIZES = [LARGE, 10, 10, LARGE, LARGE, *[10] * 700, *[LARGE] * 25, 10]


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path).start()
    yield server
    server.stop()


def texts(sizes: Sequence[int]) -> list[str]:
    return [f"{number} ".ljust(size, "x") for number, size in enumerate(sizes)]


def size_of(entries: Sequence[Raw]) -> int:
    return sum(len(fields[b"e"]) for _, fields in entries)


def append(redis: RedisServer, words: Sequence[str], topics: Sequence[str] = ("a",)) -> None:
    """By a publisher of its own, which takes no loop."""
    publisher = RedisPublisher(redis.url, prefix="test")
    for first in range(0, len(words), 50):
        publisher.publish_many(
            [Event((topics[(first + n) % len(topics)],), text) for n, text in enumerate(words[first : first + 50])]
        )
    publisher.close()


def stand_still(redis: RedisServer, words: Sequence[str], topics: Sequence[str] = ("a",)) -> None:
    """The loop of this thread has no turn while events are appended, and as long as it takes to be late."""
    end = time.monotonic() + redis_tail.BLOCK_SECONDS + redis_tail.LATE_SECONDS + 0.1
    thread = threading.Thread(target=append, args=(redis, words, topics))
    thread.start()
    thread.join()
    time.sleep(max(0.0, end - time.monotonic()))


@pytest.mark.parametrize("shards", [1, 4])
def test_a_page_ends_with_the_entry_that_reaches_its_bytes(redis: RedisServer, shards: int) -> None:
    async def check(nodes: list[Seat]) -> None:
        (seat,) = nodes
        if shards > 1:
            await seat.relay.follow("main", range(shards), 1)
        words = texts(SIZES)
        append(redis, words, ("a", "b", "c", "d"))
        await until(lambda: len(seat.delivered.entries) == len(words))
        found: list[str] = []
        after = 0
        while page := await seat.relay.read("main", after, 500):
            sizes = [len(pack(entry.event)[0]) for entry in page]
            assert sum(sizes[:-1]) < PAGE_BYTES
            assert len(page) <= 500
            found += [entry.event.data for entry in page]
            assert page.upto >= page[-1].position
            after = page.upto
        assert found == words == seat.delivered.data

    with_seats(redis, 1, check, shards_of=lambda _: shards)


def test_what_a_node_begins_with_ends_at_its_bytes(redis: RedisServer) -> None:
    async def check(nodes: list[Seat]) -> None:
        words = texts([LARGE] * 40)
        append(redis, words)
        await until(lambda: len(nodes[0].delivered.entries) == len(words))
        state = await nodes[0].relay.open("main", UNBOUNDED, 1_000, 15 * LARGE)
        assert [entry.event.data for entry in state.recent] == words[-len(state.recent) :]
        assert 15 <= len(state.recent) <= 15 + PAGE_BYTES // LARGE + 1
        state = await nodes[0].relay.open("main", UNBOUNDED, 12)
        assert [entry.event.data for entry in state.recent] == words[-12:]
        state = await nodes[0].relay.open("main", UNBOUNDED, 1_000)
        assert [entry.event.data for entry in state.recent] == words

    with_seats(redis, 1, check)


def between_pages(monkeypatch: pytest.MonkeyPatch, what: Any) -> None:
    """Does it once, behind the first page that is read."""
    asked = redis_reads.ask_script
    left = [what]

    async def then(*arguments: Any) -> Any:
        answer = await asked(*arguments)
        if left:
            left.pop()()
        return answer

    monkeypatch.setattr(redis_reads, "ask_script", then)


def test_what_is_dropped_between_two_pages_is_below_the_floor(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check(nodes: list[Seat]) -> None:
        (node,) = nodes
        words = texts([LARGE] * 30)
        await node.relay.append("main", [event(text) for text in words], None)
        floor = node.delivered.entries[20].position
        between_pages(monkeypatch, lambda: append(redis, ["one more"]))
        state = await node.relay.open("main", UNBOUNDED, 1_000)
        assert (state.floor, len(state.recent)) == (0, 30)

        between_pages(monkeypatch, lambda: redis.command("XTRIM", "{test:main}:events", "MAXLEN", "10"))
        state = await node.relay.open("main", UNBOUNDED, 1_000)
        assert state.floor == floor
        assert state.recent[-1].position == node.delivered.entries[-1].position

    with_seats(redis, 1, check)


def test_no_page_is_taken_from_another_log(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    async def check(nodes: list[Seat]) -> None:
        (node,) = nodes
        await node.relay.append("main", [event(text) for text in texts([LARGE] * 30)], None)
        between_pages(monkeypatch, lambda: redis.command("HSET", "{test:main}:facts", "epoch", "other"))
        with pytest.raises(RelayUnavailable, match="turning to a new epoch"):
            await node.relay.open("main", UNBOUNDED, 1_000)

    with_seats(redis, 1, check)


@pytest.mark.parametrize("shards", [1, 4])
def test_a_loop_that_stood_still_gets_pages_and_hands_them_on_in_slices(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch, shards: int
) -> None:
    """Large events behind small ones, and small ones behind them: nothing says beforehand what comes."""
    handed_on: list[tuple[int, int]] = []

    async def check(nodes: list[Seat]) -> None:
        (seat,) = nodes
        await seat.publish("first")
        took, took_split = seat.relay.took, seat.relay.took_split

        def noted(log: Any, entries: Sequence[Raw]) -> None:
            handed_on.append((len(entries), size_of(entries[:-1])))
            took(log, entries)

        def noted_split(log: Any, shards: Any, page: Any) -> None:
            handed_on.append((len(page.entries), size_of([raw for _, raw in page.entries[:-1]])))
            took_split(log, shards, page)

        monkeypatch.setattr(seat.relay, "took", noted)
        monkeypatch.setattr(seat.relay, "took_split", noted_split)
        if shards > 1:
            await seat.relay.follow("main", range(shards), 1)
        seat.delivered.entries.clear()
        words = texts([10] * 700 + SIZES)
        stand_still(redis, words, ("a", "b", "c", "d"))
        await until(lambda: len(seat.delivered.entries) == len(words))
        assert seat.delivered.data == words
        assert not seat.turns
        assert max(count for count, _ in handed_on) == SLICE_ENTRIES
        assert max(size for _, size in handed_on) < SLICE_BYTES

    with_seats(redis, 1, check, shards_of=lambda _: shards)


def test_a_hole_in_one_shard_is_told_of_once_however_many_pages_are_behind_it(redis: RedisServer) -> None:
    async def check(nodes: list[Seat]) -> None:
        (seat,) = nodes
        await seat.relay.follow("main", (0, 1), 1)
        words = texts([10] * 3_000)
        stand_still(redis, words, TOPICS_OF_TWO)
        redis.command("XTRIM", "{test:main}:events:0", "MAXLEN", "1")
        await until(lambda: len(seat.delivered.entries) == 1_501)
        assert seat.delivered.data == [*words[1:-2:2], *words[-2:]]
        assert [(reason, state.missing) for _, reason, _, state in seat.turns] == [("history", (0,))]

    with_seats(redis, 1, check, shards_of=lambda _: 2)


def test_small_events_are_read_without_a_script(redis: RedisServer) -> None:
    """Which would take Redis eight times as long for each."""

    async def check(nodes: list[Seat]) -> None:
        (node,) = nodes
        await node.publish("x" * LARGE)
        calls = evals(redis)
        stand_still(redis, texts([100] * 5_000))
        await until(lambda: len(node.delivered.entries) == 5_001)
        ticks = 5
        assert evals(redis) - calls <= 5_000 / 50 + ticks

    with_seats(redis, 1, check)


def evals(redis: RedisServer) -> int:
    """How many scripts Redis has run."""
    facts = redis.facts("INFO", "commandstats")
    return int(facts["cmdstat_evalsha"].partition(",")[0].removeprefix("calls="))


def test_a_log_of_a_release_that_noted_no_sizes_is_read_with_care(redis: RedisServer) -> None:
    async def check(nodes: list[Seat]) -> None:
        await nodes[0].publish(*["x" * LARGE] * 3)
        with Redis(port=redis.port) as asked:
            asked.hdel("{test:main}:facts", "large")
            async with seats(redis):
                last, large = asked.hmget("{test:main}:facts", "last", "large")
                assert large == last

    with_seats(redis, 1, check)


def test_a_redis_that_ends_connections_with_large_answers_is_read_in_smaller_pages(redis: RedisServer) -> None:
    """`client-output-buffer-limit`: what is too much for one answer comes in several."""

    async def check(nodes: list[Seat]) -> None:
        (node,) = nodes
        redis.command("CONFIG", "SET", "client-output-buffer-limit", "normal 400kb 0 0")
        words = texts([4_000] * 1_000)
        stand_still(redis, words)
        await until(lambda: node.delivered.data == words)
        await until(lambda: node.relay.state()["ok"])

    with_seats(redis, 1, check)


def test_what_is_over_age_is_dropped_some_megabytes_at_a_time(redis: RedisServer) -> None:
    """Redis does nothing else meanwhile."""
    facts, stream = "{test:main}:facts", "{test:main}:events"
    publisher = RedisPublisher(redis.url, prefix="test", shards=1)
    publisher.publish_many([Event(("a",), "x" * 10, id="old")] * 50)
    for _ in range(40):
        publisher.publish("a", "x" * 900_000, id="old")
    publisher.close()
    with Redis(port=redis.port) as asked:
        epoch = asked.hget(facts, "epoch")
        asked.hset(facts, "most_seconds", "0.1")
        time.sleep(0.2)  # they age
        left = []
        while not left or left[-1]:
            tick = (script("tick").text, 4, facts, "{test:main}:ids", facts, stream, epoch, 0, 0, 0, 1_000, 0)
            *_, events, kept_bytes = asked.eval(*tick)
            left.append(events)
        assert left[0] > 40 - 2 * (1 << 24) // 900_000
        assert int(kept_bytes) == 0
        assert not asked.exists("{test:main}:ids")


def test_a_channel_with_little_to_read_does_not_wait_for_one_with_much(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_tail, "PAGES_SECONDS", 0.01)

    async def check(nodes: list[Seat]) -> None:
        (node,) = nodes
        await node.relay.open("other", Retention(0, 0, 0), 0)
        words = texts([3_000] * 4_000)
        publisher = RedisPublisher(redis.url, prefix="test", channel="other")
        stand_still(redis, words)
        publisher.publish("a", "little")
        publisher.close()
        await until(lambda: "little" in node.delivered.data)
        assert len(node.delivered.entries) < len(words)
        await until(lambda: len(node.delivered.entries) == len(words) + 1)

    with_seats(redis, 1, check)


def test_a_page_that_did_not_come_makes_the_next_ones_smaller() -> None:
    size = PageSize(limit_seconds=60)
    for _ in range(10):
        with pytest.raises(TimeoutError), size.measured():
            raise TimeoutError
    assert size.bytes == LEAST_PAGE_BYTES
    for _ in range(QUICK_PAGES):
        assert size.bytes == LEAST_PAGE_BYTES
        with size.measured():
            pass
    assert size.bytes == 2 * LEAST_PAGE_BYTES


def test_a_page_that_took_long_is_no_reason_for_larger_ones() -> None:
    async def main() -> None:
        size = PageSize(limit_seconds=0.004)
        size.bytes = LEAST_PAGE_BYTES
        for _ in range(QUICK_PAGES):
            with size.measured():
                await asyncio.sleep(0.002)
        assert size.bytes == LEAST_PAGE_BYTES

    run(main())


def test_slices_are_whole_and_bounded() -> None:
    raws: list[Raw] = [(b"%d-0" % n, {b"e": b"x" * size}) for n, size in enumerate([10] * 250 + [LARGE] * 7 + [10])]
    parts = list(slices(raws))
    assert [raw for part in parts for raw in part] == raws
    assert [len(part) for part in parts] == [100, 100, 52, 2, 2, 2]
    assert list(slices([])) == []
