"""A split channel on a node: shards are followed for the first who needs them, and given up after the last."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any

import pytest
import structlog

from config.settings import Settings
from server import shards
from server.broadcaster import Broadcaster
from server.channel import Channel, Policy, Start
from server.frames import Encoding
from server.hub import Hub
from server.relay.protocol import Entry, Followed, LogState, RelayUnavailable
from server.selection import Selection
from server.selectors import ANY, exact_selector
from server.shards import Shards, shards_of
from tests.server.engine import EPOCH, entry, run

COUNT = 4
OF = [next(f"t/{n}" for n in range(99) if shards_of([f"t/{n}"], COUNT) == (shard,)) for shard in range(COUNT)]


def selection(*numbers: int) -> Selection:
    return Selection(frozenset([exact_selector(OF[number]) for number in numbers]))


EVERYTHING = Selection(frozenset([ANY]))


class Split:
    """A relay whose logs are split, and that notes what it is asked for."""

    shared = True

    def __init__(self) -> None:
        self.asked: list[Sequence[int]] = []
        self.given_up: list[Sequence[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.held: dict[int, list[Entry]] = {}
        self.refusing = False

    @property
    def splitter(self) -> Split:
        return self

    async def start(self, deliver: Any, turned: Any) -> None:
        self.deliver = deliver

    async def open(self, *_: object) -> LogState:
        return LogState(EPOCH, 0, [], COUNT)

    async def follow(self, _: str, numbers: Sequence[int], recent: int, recent_bytes: int) -> Sequence[Followed]:
        assert recent_bytes > 0
        self.asked.append(list(numbers))
        await self.gate.wait()
        if self.refusing:
            raise RelayUnavailable("no Redis")
        return [Followed(number, 5, self.held.get(number, [])[-recent:]) for number in numbers]

    def unfollow(self, _: str, numbers: Sequence[int]) -> None:
        self.given_up.append(numbers)

    def mark(self, _: str) -> int:
        return 1_000

    def floor(self, _: str, numbers: Shards) -> int:
        return 2 * max(numbers or range(COUNT))

    def lowest_floor(self, _: str, numbers: Shards) -> int:
        return 2 * min(numbers or range(COUNT))


async def split_hub() -> tuple[Hub, Split, Channel]:
    relay: Any = Split()
    out: Any = Broadcaster(
        asyncio.get_running_loop(), lambda *_: None, slice_seconds=0.01, span_bytes=1 << 16, backlog_bytes=1 << 20
    )
    hub = Hub(relay, out, lambda _: Policy(), max_frame_bytes=1 << 20, max_channels=10)
    with structlog.testing.capture_logs():
        await hub.start(["main"])
    return hub, relay, hub.channels["main"]


@pytest.fixture(autouse=True)
def _silent() -> Any:
    with structlog.testing.capture_logs():
        yield


def test_the_first_who_needs_a_shard_has_it_followed_and_the_next_does_not_wait() -> None:
    async def main() -> None:
        hub, relay, channel = await split_hub()
        assert hub.locate(channel, None, 0, selection(1)) is None
        assert await hub.find(channel, None, 0, selection(1)) == Start(None)
        assert hub.locate(channel, None, 0, selection(1)) == Start(None)
        assert hub.locate(channel, None, 0, selection(1, 2)) is None
        assert await hub.find(channel, None, 0, EVERYTHING) == Start(None)
        assert relay.asked == [[1], [0, 2, 3]]

    run(main)


def test_many_who_come_at_once_have_each_shard_followed_once() -> None:
    async def main() -> None:
        hub, relay, channel = await split_hub()
        relay.gate.clear()
        several = [asyncio.create_task(hub.find(channel, None, 0, selection(n % COUNT))) for n in range(40)]
        await asyncio.sleep(0)
        relay.gate.set()
        assert set(await asyncio.gather(*several)) == {Start(None)}
        assert sorted(number for numbers in relay.asked for number in numbers) == [0, 1, 2, 3]

    run(main)


def test_one_who_leaves_while_a_shard_is_begun_takes_it_from_nobody() -> None:
    async def main() -> None:
        hub, relay, channel = await split_hub()
        relay.gate.clear()
        leaves = asyncio.create_task(hub.find(channel, None, 0, selection(1)))
        stays = asyncio.create_task(hub.find(channel, None, 0, selection(1)))
        await asyncio.sleep(0)
        leaves.cancel()
        relay.gate.set()
        assert await stays == Start(None)
        assert relay.asked == [[1]]

    run(main)


def test_what_cannot_be_followed_is_an_error_and_is_tried_again() -> None:
    async def main() -> None:
        hub, relay, channel = await split_hub()
        relay.refusing = True
        with pytest.raises(RelayUnavailable):
            await hub.find(channel, None, 0, selection(1))
        relay.refusing = False
        assert await hub.find(channel, None, 0, selection(1)) == Start(None)

    run(main)


def test_floors_are_those_of_the_shards_that_are_selected() -> None:
    async def main() -> None:
        hub, _, channel = await split_hub()
        await hub.find(channel, None, 0, EVERYTHING)
        assert hub.locate(channel, "earliest", 0, selection(1)) == Start(2, missed=2)
        assert hub.locate(channel, "earliest", 0, selection(1, 3)) == Start(2, missed=6)

    run(main)


def test_what_a_shard_held_takes_its_place_among_the_others_entries() -> None:
    async def main() -> None:
        hub, relay, channel = await split_hub()
        relay.held[1] = [entry(10, "one", OF[1]), entry(30, "three", OF[1])]
        relay.held[2] = [entry(20, "two", OF[2]), entry(30, "three", OF[1], OF[2])]
        await hub.find(channel, None, 0, selection(1))
        relay.deliver("main", [entry(40, "four", OF[1])])
        await hub.find(channel, None, 0, selection(2))
        assert [one.event.data for one in channel.log.after(0, 9)] == ["one", "two", "three", "four"]
        assert channel.log.head == 40

    run(main)


def test_a_shard_is_given_up_after_its_last_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        hub, relay, channel = await split_hub()
        await hub.find(channel, None, 0, selection(1))
        feed = channel.enter(selection(1), Encoding.PLAIN)
        now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now + 10 * shards.IDLE_SECONDS)
        hub.expire()
        channel.depart(feed)
        hub.expire()
        assert relay.given_up == []
        monkeypatch.setattr(time, "monotonic", lambda: now + 12 * shards.IDLE_SECONDS)
        hub.expire()
        assert relay.given_up == [[1]]
        assert hub.locate(channel, None, 0, selection(1)) is None

    run(main)


def test_the_number_of_shards_is_a_setting_with_a_range() -> None:
    settings = Settings(channels=json.dumps({"main": {"shards": 8}}))
    assert (settings.channel("main").shards, settings.channel("other").shards) == (8, 1)
    for wrong in (0, 65, 1.5, "many"):
        with pytest.raises(ValueError, match="shards"):
            Settings(channels=json.dumps({"main": {"shards": wrong}}))
