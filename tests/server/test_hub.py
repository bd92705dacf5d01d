"""The hub: channels come into being, and an event goes from a publisher to the log and the feeds, or nowhere."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Sequence
from typing import Any

import pytest
import structlog

from server.broadcaster import Broadcaster
from server.channel import Channel, Policy, Start
from server.event import Event, InvalidEvent
from server.feed import Feed
from server.frames import Encoding
from server.hub import Hub
from server.ids import format_id, parse_id
from server.relay.memory import MemoryRelay
from server.relay.protocol import Appended, Entry, Key, LogState, RelayUnavailable, Retention, Stretch
from server.selection import Selection
from server.shards import ALL, Shards
from tests.server.engine import EPOCH, entry, run, until
from tests.server.relay.bench import Clock


class Out(Broadcaster):
    """Notes which feeds are to be swept."""

    def __init__(self) -> None:
        self.swept: list[Feed] = []
        self.full = False
        self.asked_for_room = 0
        self.has_room = True

    def publish(self, feeds: Any) -> None:
        self.swept += feeds

    @property
    def backlogged(self) -> bool:
        return self.full

    def end_replays(self, channel: Channel) -> None:
        pass

    async def room(self, seconds: float) -> bool:
        self.asked_for_room += 1
        self.full = False
        return self.has_room


class Shelf:
    """A relay that has a history, and whose calls wait for `gate`."""

    durability = "none"
    shared = False

    def __init__(self, *recent: Entry, floor: int = 0) -> None:
        self.entries = list(recent)
        self.floor_position = floor
        self.gate = asyncio.Event()
        self.opened: list[str] = []
        self.refusing = False
        self.reached: list[tuple[str, int]] = []

    async def start(self, deliver: Any, turned: Any) -> None:
        self.deliver = deliver

    async def open(self, channel: str, retention: Retention, recent: int, recent_bytes: int) -> LogState:
        self.opened.append(channel)
        await self.gate.wait()
        if self.refusing:
            raise RelayUnavailable("no disk")
        newest = self.entries[-recent:]
        cut = len(newest) < len(self.entries)
        return LogState(EPOCH, newest[0].position - 1 if cut else self.floor_position, newest)

    async def append(self, channel: str, events: Sequence[Event], key: Key | None) -> Appended:
        await self.gate.wait()
        if self.refusing:
            raise RelayUnavailable("no disk")
        added = [entry(1000 + number, event.data) for number, event in enumerate(events)]
        self.deliver(channel, added)
        return Appended(tuple(one.id for one in added), False)

    async def read(self, channel: str, after: int, limit: int, _shards: Shards = ALL) -> Stretch:
        found = [one for one in self.entries if one.position > after][:limit]
        return Stretch(found, found[-1].position if found else 5000)

    async def find(self, channel: str, event_id: str) -> Sequence[Entry]:
        return [one for one in self.entries if one.event.id == event_id]

    async def reach(self, channel: str, epoch: str, position: int) -> None:
        self.reached.append((epoch, position))

    def mark(self, channel: str) -> int:
        return 5000

    def floor(self, channel: str, _shards: Shards = ALL) -> int:
        return self.floor_position

    def state(self) -> dict[str, object]:
        return {"ok": True}

    async def close(self) -> None:
        pass


def hub_with(relay: Any, *, max_frame_bytes: int = 1 << 20, max_channels: int = 10, **policy: Any) -> tuple[Hub, Out]:
    out = Out()
    knobs = {"max_frame_bytes": max_frame_bytes, "max_channels": max_channels}
    return Hub(relay, out, lambda name: Policy(**policy), **knobs), out


async def memory_hub(**options: Any) -> tuple[Hub, Out, Channel]:
    hub, out = hub_with(MemoryRelay(120, 100, Clock()), **options)
    await hub.start(["main"])
    return hub, out, hub.channels["main"]


async def shelf_hub(*recent: Entry, floor: int = 0, **options: Any) -> tuple[Hub, Out, Shelf, Channel]:
    shelf = Shelf(*recent, floor=floor)
    shelf.gate.set()
    hub, out = hub_with(shelf, **options)
    await hub.start(["main"])
    return hub, out, shelf, hub.channels["main"]


# --- channels


@pytest.mark.parametrize("name", ["", "Main", "1a", "-a", "a" * 65, "a b", "a/b", "a\n", "ä"])
def test_a_name_that_is_none_opens_nothing(name: str) -> None:
    async def main() -> None:
        hub, _, _ = await memory_hub()
        assert not hub.may_open(name)
        with pytest.raises(KeyError):
            await hub.open(name)

    run(main)


def test_a_channel_is_opened_once_and_then_found() -> None:
    async def main() -> None:
        hub, _, one = await memory_hub()
        assert await hub.open("main") is one
        assert await hub.open("a" * 64) is hub.channels["a" * 64]

    run(main)


def test_many_who_want_a_new_channel_open_it_once_between_them() -> None:
    async def main() -> None:
        shelf = Shelf()
        hub, _ = hub_with(shelf)
        await hub.start([])
        asked = [asyncio.ensure_future(hub.open("new")) for _ in range(5)]
        await until(lambda: shelf.opened)
        asked[0].cancel()  # one who gives up spoils it for nobody
        shelf.gate.set()
        opened = await asyncio.gather(*asked[1:])
        assert shelf.opened == ["new"]
        assert opened == [hub.channels["new"]] * 4

    run(main)


def test_channels_that_are_being_opened_count_too() -> None:
    async def main() -> None:
        shelf = Shelf()
        hub, _ = hub_with(shelf, max_channels=2)
        await hub.start([])
        asked = [asyncio.ensure_future(hub.open(name)) for name in ("a", "b")]
        await until(lambda: len(shelf.opened) == 2)
        assert hub.may_open("b")  # whoever asks for it too gets it, and no 404
        with pytest.raises(KeyError):
            await hub.open("c")
        shelf.gate.set()
        await asyncio.gather(*asked)
        assert not hub.may_open("c")

    run(main)


def test_a_channel_that_could_not_be_opened_can_be_tried_again() -> None:
    async def main() -> None:
        hub, _, shelf, _ = await shelf_hub()
        shelf.refusing = True
        with pytest.raises(RelayUnavailable):
            await hub.open("new")
        shelf.refusing = False
        assert (await hub.open("new")).name == "new"

    run(main)


def test_a_channel_begins_with_what_the_relay_remembers() -> None:
    async def main() -> None:
        _, _, _, one = await shelf_hub(entry(110), entry(120, id="mine"), floor=100)
        assert (one.epoch, one.log.floor, one.log.head, len(one.log)) == (EPOCH, 109, 120, 2)
        assert list(one.log.with_id("mine"))

    run(main)


def test_a_channel_with_a_part_of_the_relays_history_says_where_it_begins() -> None:
    async def main() -> None:
        entries = [entry(position) for position in (110, 120, 130)]
        _, _, _, one = await shelf_hub(*entries, floor=100, ring=Retention(2, 0, 0))
        assert [kept.position for kept in one.log.after(0, 9)] == [120, 130]
        assert 110 <= one.log.floor < 120

    run(main)


# --- the way of an event


def test_with_memory_a_publish_is_one_call() -> None:
    async def main() -> None:
        hub, out, one = await memory_hub()
        feed = one.enter(Selection(), Encoding.PLAIN)
        appended = hub.publish(one, [Event(("a",), "x"), Event(("b",), "y")])
        assert isinstance(appended, Appended)
        positions = [parse_id(event_id) for event_id in appended.ids]
        assert positions == [(one.epoch, position[1]) for position in positions if position]
        assert out.swept == [feed]
        assert (feed.ring.head, len(one.log)) == (2, 2)

    run(main)


def test_with_another_relay_a_publish_is_awaited_and_delivered_before_it_is_acknowledged() -> None:
    async def main() -> None:
        hub, out, _, one = await shelf_hub()
        feed = one.enter(Selection(), Encoding.PLAIN)
        appended = hub.publish(one, [Event(("a",), "x")])
        assert inspect.isawaitable(appended)
        assert (await appended).ids == (format_id(EPOCH, 1000),)
        assert out.swept == [feed]

    run(main)


def test_an_event_that_was_not_appended_is_delivered_to_nobody() -> None:
    async def main() -> None:
        hub, out, shelf, one = await shelf_hub()
        one.enter(Selection(), Encoding.PLAIN)
        shelf.refusing = True
        appended = hub.publish(one, [Event(("a",), "x")])
        assert inspect.isawaitable(appended)
        with pytest.raises(RelayUnavailable):
            await appended
        assert (out.swept, one.published, len(one.log)) == ([], 0, 0)

    run(main)


@pytest.mark.parametrize("data", ["x" * 1000, "\n" * 150, "é" * 500])
def test_an_event_too_large_on_the_wire_takes_its_batch_with_it(data: str) -> None:
    async def main() -> None:
        hub, _, one = await memory_hub(max_frame_bytes=1000)
        with pytest.raises(InvalidEvent) as caught:
            hub.publish(one, [Event(("a",), "small"), Event(("a",), data)])
        assert (caught.value.field, caught.value.too_large, one.published) == ("data", True, 0)

    run(main)


def test_an_event_of_just_the_size_goes() -> None:
    async def main() -> None:
        hub, _, one = await memory_hub(max_frame_bytes=1000)
        appended = hub.publish(one, [Event(("a",), "x" * (1000 - len("id: \ndata: \n\n") - 20))])
        assert isinstance(appended, Appended)
        assert len(one.log.after(0, 1)[0].frame) == 1000

    run(main)


@pytest.mark.parametrize("event_id", [None, "i" * 256])
def test_no_frame_is_larger_than_may_be_whatever_it_is_made_of(event_id: str | None) -> None:
    async def main() -> None:
        hub, _, one = await memory_hub(max_frame_bytes=1000)
        for size in range(700, 1000, 7):
            try:
                hub.publish(one, [Event(("a",), "x" * size, "t" * 20, event_id, 5)])
            except InvalidEvent:
                break
        assert max((len(kept.frame) for kept in one.log.before(1 << 60, 100)), default=0) <= 1000

    run(main)


def test_a_publisher_waits_for_room_before_its_events_are_in_the_log() -> None:
    async def main() -> None:
        hub, out, one = await memory_hub()
        out.full = True
        appended = hub.publish(one, [Event(("a",), "x")])
        assert inspect.isawaitable(appended)
        assert one.published == 0
        await appended
        assert (out.asked_for_room, one.published) == (1, 1)

    run(main)


def test_a_publisher_that_finds_no_room_is_refused_and_nothing_is_published() -> None:
    async def main() -> None:
        hub, out, one = await memory_hub()
        out.full, out.has_room = True, False
        appended = hub.publish(one, [Event(("a",), "x")])
        assert inspect.isawaitable(appended)
        with pytest.raises(RelayUnavailable, match="backlog"):
            await appended
        assert one.published == 0

    run(main)


@pytest.mark.parametrize(
    "state",
    [LogState("other1", 1500, []), LogState(EPOCH, 1500, []), LogState(EPOCH, 1000, [], 1, (0,))],
    ids=["another log", "a hole", "a hole in a shard"],
)
def test_a_listener_is_told_where_entries_may_never_come_before_readers_are(state: LogState) -> None:
    async def main() -> None:
        hub, out, _, channel = await shelf_hub()
        channel.enter(Selection(), Encoding.PLAIN)
        told: list[tuple[int, int]] = []

        def missed() -> None:
            told.append((len(out.swept), len(channel.holes)))
            raise RuntimeError("readers are not to suffer from it")

        hub.listen("main", lambda _: None, missed)
        hub.listen("other", lambda _: None, missed)
        with structlog.testing.capture_logs() as lines:
            hub._turn("main", "history", 1500, state)
        assert told == [(0, 0)]
        assert len(channel.holes) == (state.epoch == EPOCH)
        hub.expire()
        assert (len(out.swept), channel.holes) == (1, {})
        assert [line["event"] for line in lines] == ["listener_failed"]

    run(main)


def test_entries_of_a_channel_that_nobody_opened_here_go_nowhere() -> None:
    async def main() -> None:
        _, out, shelf, one = await shelf_hub()
        shelf.deliver("other", [entry(1)])
        assert (out.swept, one.published) == ([], 0)

    run(main)


# --- where a reader starts


def test_without_a_cursor_a_stream_is_live_or_starts_with_the_last_few() -> None:
    async def main() -> None:
        hub, _, _, one = await shelf_hub(entry(110), entry(120), entry(130), floor=100)
        assert hub.locate(one, None, 0, Selection()) == Start(None)
        assert hub.locate(one, None, 2, Selection()) == Start(130, last=2)

    run(main)


def test_a_cursor_wins_over_the_last_few() -> None:
    async def main() -> None:
        hub, _, _, one = await shelf_hub(entry(110), entry(120), floor=100)
        assert hub.locate(one, format_id(EPOCH, 120), 2, Selection()) == Start(120, found=True)
        assert hub.locate(one, "", 2, Selection()) == Start(None)
        assert hub.locate(one, format_id(EPOCH, 5001), 2, Selection()) == Start(None, gap="future")

    run(main)


def test_a_publishers_id_that_memory_has_dropped_is_found_in_the_relay_if_it_may_be_read() -> None:
    async def main() -> None:
        entries = [
            entry(110, "", "secret", id="mine", private=True), entry(115, "", "a", id="mine"), entry(120), entry(130)
        ]  # fmt: skip
        hub, _, _, one = await shelf_hub(*entries, floor=100, ring=Retention(1, 0, 0))
        assert hub.locate(one, "mine", 0, Selection()) is None
        assert await hub.find(one, "mine", 0, Selection()) == Start(115, found=True)
        assert await hub.find(one, "mine", 0, Selection(grants=None)) == Start(110, found=True)
        assert await hub.find(one, "never-there", 0, Selection()) == Start(100, gap="unknown", missed=100)

    run(main)


def test_a_publishers_id_that_another_node_appended_a_moment_ago_is_waited_for() -> None:
    """Here it is not known yet, and all that is known to be in the log is in memory."""

    async def main() -> None:
        hub, _, shelf, one = await shelf_hub(entry(120), floor=100)
        shelf.shared = True
        ahead = entry(130, id="mine")
        shelf.entries.append(ahead)
        assert hub.locate(one, "mine", 0, Selection()) is None
        assert await hub.find(one, "mine", 0, Selection()) == Start(130, found=True)
        assert shelf.reached == [(EPOCH, 130)]
        assert await hub.find(one, "never-there", 0, Selection()) == Start(100, gap="unknown", missed=100)

    run(main)


def test_what_is_over_age_leaves_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        hub, _, _, one = await shelf_hub(entry(110, time=10.0), entry(120, time=20.0), ring=Retention(10, 0, 30.0))
        monkeypatch.setattr("server.hub.time.time", lambda: 45.0)
        hub.expire()
        assert [kept.position for kept in one.log.before(1 << 60, 100)] == [120]

    run(main)
