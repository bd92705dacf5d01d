"""JetStream with a real server: once, in the order of the stream, and what is acknowledged when."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog

from bridges import jetstream as jetstream_module
from bridges.jetstream import Consumer, JetStream, subject_matches
from bridges.mapping import Mapping
from bridges.nats_connection import NatsTarget
from tests.bridges.conftest import bridge, data, facts, listen, mapping, settings, state, until, until_active
from tests.bridges.recording_hub import RecordingHub
from tests.conftest import StartNode
from tests.faults.witnesses import TOPIC
from tests.harness.nats import NatsServer
from tests.harness.process import Node, wait_until
from tests.server.relay.bench import run

NUMBERS = bridge("jetstream", "n", mapping("numbers.>", TOPIC), stream="N", create=True, subjects=["numbers.>"])


def until_caught_up(node: Node, number: int) -> None:
    """Wait until so many more messages have been appended by a node."""
    wanted = facts(node, "n")["published"] + number
    wait_until(lambda: facts(node, "n")["published"] >= wanted, 30, "the bridge")


def test_what_was_stored_before_and_what_comes_later_enters_in_order(nats: NatsServer, node: StartNode) -> None:
    nats.add_stream("N", "numbers.>")
    nats.store("numbers.a", *map(str, range(200)))
    one = node(**settings(NUMBERS, nats_url=nats.url))
    until_active(one, "n")
    until_caught_up(one, 0)
    with listen(one, TOPIC + "&last=1000") as stream:
        nats.store("numbers.a", *map(str, range(200, 300)))
        assert data(stream, 300) == [str(number) for number in range(300)]
    wait_until(lambda: nats.consumer("N").num_ack_pending == 0, what="the acknowledgements")
    assert nats.consumer("N").ack_floor.stream_seq == 300


def test_poison_is_terminated_and_what_is_behind_it_goes_on(nats: NatsServer, node: StartNode) -> None:
    picky = bridge("jetstream", "n", mapping("p.*", data="{json.n}"), stream="P", create=True, subjects=["p.*"])
    one = node(**settings(picky, nats_url=nats.url, max_frame_bytes=100_000))
    until_active(one, "n")
    with listen(one) as stream:
        nats.store("p.a", '{"n":1}', "poison", '{"n":"' + "x" * 200_000 + '"}', "\x00", '{"n":2}')
        assert data(stream, 2) == ["1", "2"]
    wait_until(lambda: nats.consumer("P").num_ack_pending == 0, what="the acknowledgements")
    assert facts(one, "n")["unmappable"] == 2 + 1
    assert nats.consumer("P").num_redelivered == 0


def test_a_message_that_looks_like_the_servers_own_word_is_a_message(nats: NatsServer, node: StartNode) -> None:
    one = node(**settings(NUMBERS, nats_url=nats.url))
    until_active(one, "n")

    async def work(client: Any) -> None:
        headers = {"Status": "409", "Description": "Consumer Deleted"}
        await client.jetstream().publish("numbers.a", b"1", headers=headers)

    with listen(one, TOPIC) as stream:
        nats.ask(work)
        nats.store("numbers.a", "2")
        assert data(stream, 2) == ["1", "2"]
    assert facts(one, "n")["reconnects"] == 0


def test_a_stream_that_is_not_there_is_said_and_found_once_it_is(nats: NatsServer, node: StartNode) -> None:
    plain = {name: value for name, value in NUMBERS.items() if name not in ("create", "subjects")}
    one = node(**settings(plain, nats_url=nats.url))
    wait_until(lambda: "no such stream or consumer" in state(one, "n"), what="the bridge's state")
    nats.add_stream("N", "numbers.>")

    async def work(client: Any) -> None:
        await client.jetstream().add_consumer("N", durable_name="ringcast", ack_policy="explicit")

    nats.ask(work)
    until_active(one, "n")
    with listen(one, TOPIC) as stream:
        nats.store("numbers.a", "1")
        assert data(stream, 1) == ["1"]


def test_a_consumer_that_is_deleted_is_made_again(nats: NatsServer, node: StartNode) -> None:
    one = node(**settings(NUMBERS, nats_url=nats.url))
    until_active(one, "n")

    async def work(client: Any) -> None:
        await client.jetstream().delete_consumer("N", "ringcast")

    with listen(one, TOPIC) as stream:
        nats.store("numbers.a", "1")
        assert data(stream, 1) == ["1"]
        nats.ask(work)
        wait_until(lambda: facts(one, "n")["reconnects"] == 1, what="the reconnect")
        nats.store("numbers.a", "2")
        assert data(stream, 1) == ["2"]  # 1 came again, and was known by its key
    assert facts(one, "n")["repeated"] == 1


def test_mappings_that_changed_change_the_consumer(nats: NatsServer, node: StartNode) -> None:
    one = node(**settings(NUMBERS, nats_url=nats.url))
    until_active(one, "n")
    one.stop()
    narrower = NUMBERS | {"mappings": [mapping("numbers.a.*", TOPIC)]}
    other = node(**settings(narrower, nats_url=nats.url))
    until_active(other, "n")
    assert nats.consumer("N").config.filter_subjects == ["numbers.a.*"]


def test_a_server_without_jetstream_is_said(tmp_path: Path, node: StartNode) -> None:
    server = NatsServer(tmp_path, jetstream=False).start()
    try:
        one = node(**settings(NUMBERS, nats_url=server.url))
        wait_until(lambda: "JetStream" in state(one, "n"), what="the bridge's state")
    finally:
        server.stop()


# --- in this process, with a log that is away as long as a test wants


@contextmanager
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(jetstream_module, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(jetstream_module, "FIRST_DELAY_SECONDS", 0.2)
    monkeypatch.setattr(jetstream_module, "LONGEST_DELAY_SECONDS", 0.4)
    with structlog.testing.capture_logs():
        yield


def in_process(server: NatsServer, hub: Any) -> JetStream:
    target = NatsTarget((server.url,))
    mappings = [Mapping("numbers.>", channel="main", topics=["t"])]
    return JetStream("n", hub, target, mappings, Consumer("N", create=True, subjects=("numbers.>",)))


def test_what_was_given_back_comes_again_in_order_and_once(nats: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        hub = RecordingHub()
        hub.away = True
        one = in_process(nats, hub)
        task = asyncio.ensure_future(one.run())
        await until(lambda: one.active, 20)
        await asyncio.to_thread(nats.store, "numbers.a", *map(str, range(300)))
        await asyncio.to_thread(nats.store, "numbers.a", *map(str, range(300, 320)))
        before = one.counts.received
        await until(lambda: one.counts.received > before + 200)  # at 100 a time: they came again, and again
        hub.forget, hub.away = 5, False
        await until(lambda: len(hub.data) == 320, 30)
        assert hub.data == [f"main {number}" for number in range(320)]
        await one.stop()
        await task

    with quick(monkeypatch):
        run(main())
    assert nats.consumer("N").num_ack_pending == 0


def test_nothing_is_acknowledged_before_it_is_appended_and_no_more_is_asked_for(
    nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Backpressure: what the log has not taken stays in JetStream, but for a bounded number."""

    async def main() -> None:
        hub = RecordingHub()
        one = in_process(nats, hub)
        task = asyncio.ensure_future(one.run())
        await until(lambda: one.active, 20)
        hub.gate.clear()
        await asyncio.to_thread(nats.store, "numbers.a", *map(str, range(1_200)))
        info = await asyncio.to_thread(nats.consumer, "N")
        assert info.ack_floor.stream_seq == 0
        assert 0 < info.num_ack_pending <= jetstream_module.PULL_MESSAGES
        hub.gate.set()
        await until(lambda: len(hub.data) == 1_200, 20)
        assert hub.data == [f"main {number}" for number in range(1_200)]
        await one.stop()
        await task

    with quick(monkeypatch):
        run(main())
    assert nats.consumer("N").ack_floor.stream_seq == 1_200


def test_a_slow_append_is_said_to_be_in_progress_and_not_given_to_another(
    nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jetstream_module, "ACK_WAIT_SECONDS", 1.0)

    async def main() -> None:
        hub = RecordingHub()
        hub.gate.clear()
        one = in_process(nats, hub)
        task = asyncio.ensure_future(one.run())
        await until(lambda: one.active, 20)
        await asyncio.to_thread(nats.store, "numbers.a", "1", "2")
        await until(lambda: hub.calls, 20)
        await asyncio.sleep(3)  # three times what a consumer waits
        hub.gate.set()
        await until(lambda: len(hub.data) == 2, 20)
        await one.stop()
        await task
        assert one.counts.received == 2

    with quick(monkeypatch):
        run(main())
    assert nats.consumer("N").num_redelivered == 0


@pytest.mark.parametrize(
    ("pattern", "subject", "matches"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.c", False),
        ("a.*", "a.b", True),
        ("a.*", "a.b.c", False),
        ("a.*", "a", False),
        ("*.b", "a.b", True),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        (">", "a", True),
        (">", "a.b", True),
        ("*.*.>", "a.b", False),
        ("*.*.>", "a.b.c.d", True),
    ],
)
def test_a_pattern_means_what_nats_means_by_it(pattern: str, subject: str, matches: bool) -> None:
    assert subject_matches(pattern, subject) is matches


def test_a_pattern_means_what_nats_means_by_it_for_all_short_ones(nats: NatsServer) -> None:
    """Against the server itself."""
    words = ("a", "b", "*")
    patterns = [".".join(p) for n in (1, 2, 3) for p in itertools.product(words, repeat=n)]
    patterns += [f"{p}.>" for p in patterns if p.count(".") < 2] + [">"]
    subjects = [".".join(s) for n in (1, 2, 3) for s in itertools.product("ab", repeat=n)]

    async def work(client: Any) -> None:
        got: dict[str, set[str]] = {pattern: set() for pattern in patterns}
        for pattern in patterns:

            async def came(msg: Any, pattern: str = pattern) -> None:
                got[pattern].add(msg.subject)

            await client.subscribe(pattern, cb=came)
        for subject in subjects:
            await client.publish(subject, b"")
        await client.flush()
        await asyncio.sleep(0.1)
        for pattern in patterns:
            mine = {subject for subject in subjects if subject_matches(pattern, subject)}
            assert {name for name in got[pattern] if name in subjects} == mine, pattern

    nats.ask(work)


def test_what_a_server_says_of_a_bridge_is_json(nats: NatsServer, node: StartNode) -> None:
    one = node(**settings(NUMBERS, nats_url=nats.url))
    until_active(one, "n")
    assert json.loads(one.get("/ready")[2])["checks"]["bridge_n"] == "ok"
    assert b'ringcast_bridge_active{bridge="n"} 1.0' in one.get("/metrics")[2]
