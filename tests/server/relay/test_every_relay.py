"""What every relay guarantees (server/relay/protocol.py), on each of them."""

from __future__ import annotations

import asyncio

import pytest

from server.event import Event
from server.frames import encode
from server.ids import format_id
from server.relay.protocol import Appended, Entry, KeyConflict, Relay, RelayUnavailable, Retention
from tests.server.relay.bench import START, UNBOUNDED, Clock, Delivered, event, key, never_turned, run, started, until
from tests.server.relay.conftest import MakeRelay

START_US = int(START * 1e6)


async def publish(relay: Relay, *data: str, channel: str = "main") -> tuple[str, ...]:
    return (await relay.append(channel, [event(text) for text in data], None)).ids


def test_entries_are_delivered_before_append_returns(make_relay: MakeRelay) -> None:
    async def main() -> None:
        relay = make_relay(Clock())
        delivered = await started(relay)
        first = await publish(relay, "one", "two")
        assert delivered.data == ["one", "two"]
        assert tuple(entry.id for entry in delivered.entries) == first
        await publish(relay, "three")
        assert delivered.data == ["one", "two", "three"]
        await relay.close()

    run(main())


def test_an_entry_carries_its_id_its_frame_and_its_time(make_relay: MakeRelay) -> None:
    async def main() -> None:
        relay = make_relay(Clock())
        delivered = Delivered()
        await relay.start(delivered, never_turned)
        epoch = (await relay.open("main", UNBOUNDED, 0)).epoch
        sent = Event(topics=("x", "y"), data="a\r\nb\x00c\u2028", type="price", retry_ms=7, private=True)
        await relay.append("main", [sent], None)
        (entry,) = delivered.entries
        assert entry.event == sent
        assert entry.position == START_US
        assert entry.id == format_id(epoch, START_US)
        assert entry.frame == encode(sent, entry.id)
        assert entry.time == START
        assert list(await relay.read("main", 0, 10)) == [entry]
        await relay.close()

    run(main())


@pytest.mark.parametrize("topics", [(), ("a", "b/c")])
def test_a_location_is_kept_to_the_last_digit_and_not_sent(make_relay: MakeRelay, topics: tuple[str, ...]) -> None:
    places = [(6.524379, 3.379206), (0.1 + 0.2, -1 / 3), (90.0, -180.0), (-0.0, 5e-324), (-90, 180), None]

    async def main() -> None:
        relay = make_relay(Clock())
        delivered = await started(relay)
        sent = [Event(topics, "x", location=place) for place in places]
        await relay.append("main", sent, None)
        assert [entry.event for entry in delivered.entries] == sent
        assert list(await relay.read("main", 0, 10)) == delivered.entries
        assert len({entry.frame.partition(b"\n")[2] for entry in delivered.entries}) == 1
        await relay.close()

    run(main())


def test_positions_rise_though_the_clock_stands_or_goes_back(make_relay: MakeRelay) -> None:
    async def main() -> None:
        clock = Clock()
        relay = make_relay(clock)
        delivered = await started(relay)
        await publish(relay, "a", "b")
        await publish(relay, "c")
        clock.now -= 3600
        await publish(relay, "d")
        clock.now += 7200
        await publish(relay, "e")
        positions = [entry.position for entry in delivered.entries]
        assert positions == sorted(set(positions))
        assert positions[:3] == [START_US, START_US + 1, START_US + 2]
        assert positions[-1] == START_US + 3600 * 1_000_000
        await relay.close()

    run(main())


def test_nothing_is_appended_at_or_below_a_mark(make_relay: MakeRelay) -> None:
    async def main() -> None:
        clock = Clock()
        relay = make_relay(clock)
        delivered = await started(relay)
        assert relay.mark("main") == START_US
        await publish(relay, "a")
        assert delivered.entries[0].position > START_US
        clock.now += 2
        mark = relay.mark("main")
        assert mark >= delivered.entries[-1].position
        clock.now -= 3600
        assert relay.mark("main") == mark
        await publish(relay, "b")
        assert delivered.entries[-1].position > mark
        await relay.close()

    run(main())


def test_a_mark_never_passes_an_event_that_is_not_delivered_yet(make_relay: MakeRelay) -> None:
    async def main() -> None:
        clock = Clock()
        relay = make_relay(clock)
        delivered = await started(relay)
        marks: list[tuple[int, int]] = []
        publishing = True

        async def look() -> None:
            while publishing:
                clock.now += 0.001
                marks.append((relay.mark("main"), len(delivered.entries)))
                await asyncio.sleep(0)

        looking = asyncio.create_task(look())
        for number in range(200):
            await publish(relay, str(number))
        publishing = False
        await looking
        for mark, seen in marks:
            assert all(entry.position <= mark for entry in delivered.entries[:seen][-1:])
            assert all(entry.position > mark for entry in delivered.entries[seen:][:1])
        await relay.close()

    run(main())


def test_read_returns_slices_in_order_and_nothing_at_the_head(make_relay: MakeRelay) -> None:
    async def main() -> None:
        relay = make_relay(Clock())
        delivered = await started(relay)
        await publish(relay, *map(str, range(700)))
        cursor = 0
        got: list[Entry] = []
        while part := await relay.read("main", cursor, 100):
            assert len(part) <= 100
            got += part
            cursor = part[-1].position
        assert got == delivered.entries
        assert list(await relay.read("main", delivered.entries[-2].position, 100)) == delivered.entries[-1:]
        await relay.close()

    run(main())


def test_channels_are_logs_of_their_own(make_relay: MakeRelay) -> None:
    async def main() -> None:
        relay = make_relay(Clock())
        delivered = await started(relay)
        await relay.open("other", UNBOUNDED, 0)
        await asyncio.gather(publish(relay, "a"), publish(relay, "b", channel="other"), publish(relay, "c"))
        assert sorted(zip(delivered.channels, delivered.data, strict=True)) == [
            ("main", "a"), ("main", "c"), ("other", "b"),
        ]  # fmt: skip
        assert [entry.event.data for entry in await relay.read("other", 0, 10)] == ["b"]
        await relay.close()

    run(main())


def test_open_returns_the_newest_entries_oldest_first(make_relay: MakeRelay) -> None:
    async def main() -> None:
        relay = make_relay(Clock())
        delivered = await started(relay)
        await publish(relay, *map(str, range(50)))
        state = await relay.open("main", UNBOUNDED, 7)
        assert state.recent == delivered.entries[-7:]
        assert state.floor == 0
        assert (await relay.open("main", UNBOUNDED, 1000)).recent == delivered.entries
        assert (await relay.open("main", UNBOUNDED, 0)).recent == []
        await relay.close()

    run(main())


def test_find_returns_the_entries_with_a_publishers_own_id(make_relay: MakeRelay) -> None:
    async def main() -> None:
        relay = make_relay(Clock())
        delivered = await started(relay)
        events = [event("1", "mine"), event("2"), event("3", "mine"), event("4", "other")]
        appended = await relay.append("main", events, None)
        assert [appended.ids[0], appended.ids[2], appended.ids[3]] == ["mine", "mine", "other"]
        assert list(await relay.find("main", "mine")) == [delivered.entries[0], delivered.entries[2]]
        assert list(await relay.find("main", appended.ids[1])) == []
        assert list(await relay.find("main", "nobody's")) == []
        await relay.append("main", [event(str(number), "often") for number in range(150)], None)
        assert [entry.event.data for entry in await relay.find("main", "often")] == [
            str(number) for number in range(100)
        ]
        await relay.close()

    run(main())


def test_a_log_keeps_at_most_the_events_it_may(make_relay: MakeRelay) -> None:
    async def main() -> None:
        relay = make_relay(Clock())
        delivered = await started(relay, retention=Retention(events=10, bytes=0, seconds=0))
        await publish(relay, *map(str, range(10)))
        assert relay.floor("main") == 0
        for number in range(10, 25):
            await publish(relay, str(number))
        assert list(await relay.read("main", 0, 100)) == delivered.entries[15:]
        assert relay.floor("main") == delivered.entries[14].position
        assert (await relay.open("main", Retention(10, 0, 0), 0)).floor == delivered.entries[14].position
        await relay.close()

    run(main())


def test_a_log_keeps_at_most_the_bytes_of_frames_it_may(make_relay: MakeRelay) -> None:
    async def main() -> None:
        relay = make_relay(Clock())
        delivered = await started(relay, retention=Retention(events=0, bytes=1000, seconds=0))
        for _ in range(30):
            await publish(relay, "x" * 60)
        size = len(delivered.entries[0].frame)
        assert list(await relay.read("main", 0, 100)) == delivered.entries[-(1000 // size) :]
        await relay.close()

    run(main())


def test_a_log_drops_what_is_over_age_without_a_new_publish(
    make_relay: MakeRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.relay.sqlite.TIDY_SECONDS", 0.02)

    async def main() -> None:
        clock = Clock()
        relay = make_relay(clock)
        delivered = await started(relay, retention=Retention(events=0, bytes=0, seconds=60))
        await relay.append("main", [event("old", "mine")], None)
        clock.now += 50
        await publish(relay, "new")
        clock.now += 30

        async def only_the_new() -> bool:
            return list(await relay.read("main", 0, 10)) == delivered.entries[1:]

        await until(only_the_new)
        assert relay.floor("main") == delivered.entries[0].position
        assert list(await relay.find("main", "mine")) == []
        await relay.close()

    run(main())


def test_an_event_larger_than_the_log_is_delivered_and_not_kept(make_relay: MakeRelay) -> None:
    async def main() -> None:
        relay = make_relay(Clock())
        delivered = await started(relay, retention=Retention(events=0, bytes=1000, seconds=0))
        await publish(relay, "small")
        await publish(relay, "x" * 2000)
        assert delivered.data == ["small", "x" * 2000]
        assert list(await relay.read("main", 0, 10)) == []
        assert relay.floor("main") == delivered.entries[-1].position
        await relay.close()

    run(main())


def test_a_key_that_was_seen_gives_the_same_ids_and_no_event(make_relay: MakeRelay) -> None:
    async def main() -> None:
        relay = make_relay(Clock())
        delivered = await started(relay)
        events = [event("1"), event("2", "mine"), event("3")]
        first = await relay.append("main", events, key("k"))
        again = await relay.append("main", events, key("k"))
        assert again == Appended(first.ids, True)
        assert not first.replayed
        assert first.ids[1] == "mine"
        assert len(delivered.entries) == 3
        await relay.close()

    run(main())


def test_the_same_key_twice_in_one_turn_gives_one_event(make_relay: MakeRelay) -> None:
    async def main() -> None:
        relay = make_relay(Clock())
        delivered = await started(relay)
        answers = await asyncio.gather(*(relay.append("main", [event("x")], key("k")) for _ in range(5)))
        assert len({answer.ids for answer in answers}) == 1
        assert [answer.replayed for answer in answers] == [False, True, True, True, True]
        assert delivered.data == ["x"]
        await relay.close()

    run(main())


def test_a_key_with_another_digest_fails_its_own_publish_only(make_relay: MakeRelay) -> None:
    async def main() -> None:
        relay = make_relay(Clock())
        delivered = await started(relay)
        answers = await asyncio.gather(
            relay.append("main", [event("a")], key("k", b"1")),
            relay.append("main", [event("b")], key("k", b"2")),
            relay.append("main", [event("c")], None),
            relay.append("main", [event("d")], key("k", b"1", scope="another")),
            return_exceptions=True,
        )
        assert isinstance(answers[1], KeyConflict)
        assert delivered.data == ["a", "c", "d"]
        await relay.close()

    run(main())


def test_a_key_counts_for_its_window_and_on_its_channel(make_relay: MakeRelay) -> None:
    async def main() -> None:
        clock = Clock()
        relay = make_relay(clock)
        delivered = await started(relay)
        await relay.open("other", UNBOUNDED, 0)
        await relay.append("main", [event("1")], key("k"))
        assert not (await relay.append("other", [event("2")], key("k"))).replayed
        clock.now += 119
        assert (await relay.append("main", [event("3")], key("k"))).replayed
        clock.now += 2
        assert not (await relay.append("main", [event("4")], key("k", b"2"))).replayed
        assert delivered.data == ["1", "2", "4"]
        await relay.close()

    run(main())


def test_keys_are_bounded_and_the_oldest_leave_first(make_relay: MakeRelay) -> None:
    async def main() -> None:
        relay = make_relay(Clock())
        await started(relay)
        for number in range(150):
            await relay.append("main", [event("x")], key(str(number)))
        assert not (await relay.append("main", [event("x")], key("0"))).replayed
        assert (await relay.append("main", [event("x")], key("149"))).replayed
        assert (await relay.append("main", [event("x")], key("80"))).replayed
        await relay.close()

    run(main())


def test_a_key_with_any_characters_is_a_key(make_relay: MakeRelay) -> None:
    async def main() -> None:
        relay = make_relay(Clock())
        await started(relay)
        odd = key("a\x00\ud800", scope="\udfff")
        first = await relay.append("main", [event("x")], odd)
        assert (await relay.append("main", [event("x")], odd)) == Appended(first.ids, True)
        await relay.close()

    run(main())


def test_no_events_append_nothing(make_relay: MakeRelay) -> None:
    async def main() -> None:
        relay = make_relay(Clock())
        delivered = await started(relay)
        assert await relay.append("main", [], None) == Appended((), False)
        assert delivered.entries == []
        await relay.close()

    run(main())


def test_a_closed_relay_refuses_and_says_so(make_relay: MakeRelay) -> None:
    async def main() -> None:
        relay = make_relay(Clock())
        await started(relay)
        assert relay.state()["ok"] is True
        await relay.close()
        assert relay.state()["ok"] is False
        with pytest.raises(RelayUnavailable, match="closed"):
            await publish(relay, "late")

    run(main())


def test_every_relay_says_what_an_append_survives(make_relay: MakeRelay) -> None:
    assert len(make_relay(Clock()).durability) > 10
