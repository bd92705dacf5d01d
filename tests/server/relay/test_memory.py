"""What is true of `memory:` alone."""

from __future__ import annotations

from server.relay.memory import MemoryRelay
from server.relay.protocol import Retention
from tests.server.relay.bench import Clock, event, key, run, started


def test_append_now_appends_and_delivers_without_a_loop_turn() -> None:
    async def main() -> None:
        relay = MemoryRelay(120, 100, Clock())
        delivered = await started(relay)
        appended = relay.append_now("main", [event("x")], None)
        assert [entry.id for entry in delivered.entries] == list(appended.ids)

    run(main())


def test_dropped_entries_do_not_stay_in_memory() -> None:
    async def main() -> None:
        clock = Clock()
        relay = MemoryRelay(120, 100, clock)
        await started(relay, retention=Retention(events=5, bytes=0, seconds=10))
        for number in range(5000):
            relay.append_now("main", [event(str(number), f"id-{number}")], None)
        assert relay.state()["events"] == 5
        clock.now += 11
        assert relay.state()["events"] == 0
        assert relay.state()["bytes"] == 0
        assert list(await relay.find("main", "id-4999")) == []

    run(main())


def test_a_key_for_many_own_ids_weighs_more_than_one() -> None:
    async def main() -> None:
        relay = MemoryRelay(120, 100, Clock())
        await started(relay)
        relay.append_now("main", [event("x")], key("first"))
        relay.append_now("main", [event("x", f"{number:0200}") for number in range(200)], key("heavy"))
        assert not relay.append_now("main", [event("x")], key("first")).replayed

    run(main())
