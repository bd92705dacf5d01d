"""Section 3 of the contract: complete, or said so. The joint of replay and live is in test_joint, long replays in
test_long_replay.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.contract.client import MARK, Channel, control, until
from tests.contract.conftest import RELAYS, StartChannel, relay_url
from tests.harness.process import Node, wait_until
from tests.harness.stream import Stream


def numbered(count: int) -> list[dict[str, object]]:
    return [{"data": str(number)} for number in range(count)]


def test_every_cursor_resumes_with_what_follows(spread: Channel) -> None:
    """3.2, 3.5, 4.1: from each event to the last, on every node."""
    ids = spread.publish_all(numbered(40))
    for (place, cursor), node in itertools.product(enumerate(ids), spread.each()):
        with node.stream(Last_Event_ID=cursor) as stream:
            assert control(stream)[1]["complete"] is True
            mark = spread.mark()
            came = [event.id for event in until(stream, mark)]
            assert came[: len(ids) - place - 1] == ids[place + 1 :]
            assert cursor not in came
            assert len(came) == len(set(came))


def test_a_fresh_stream_begins_now_and_its_cursor_resumes(spread: Channel) -> None:
    """3.2, 3.5: the place that `hello` names loses nothing, though no event had come, on this node and on another."""
    nodes = spread.each()
    nodes[0].publish("before")
    with nodes[0].stream() as fresh:
        kind, facts = control(fresh)
    assert (kind, facts["complete"]) == ("hello", True)
    missed = spread.publish("missed")
    for node in nodes:
        with node.stream(Last_Event_ID=str(facts["cursor"])) as stream:
            assert control(stream)[1]["complete"] is True
            assert stream.events(1)[0].id == missed


def assert_gap(stream: Stream, reason: str) -> dict[str, object]:
    """An incomplete `hello` without a cursor, then the gap; its facts."""
    block = stream.next_event()
    assert (block.type, block.id) == ("hello", None)
    facts = json.loads(block.data or "")
    assert (facts["complete"], facts["cursor"]) == (False, None)
    kind, gap = control(stream)
    assert (kind, gap["reason"]) == ("gap", reason)
    assert set(gap) == {"reason", "from", "to"}
    return gap


def test_a_cursor_older_than_what_is_kept_gets_a_gap(channel: StartChannel, relay: str) -> None:
    """3.4, 3.5, 3.6: the gap names the hole, then comes all that is kept."""
    c = channel(relay=relay, nodes=2, ring_events=10, retain_events=10)
    ids = c.publish_all(numbered(100))
    for node in c.each():
        with node.stream(Last_Event_ID=ids[3]) as stream:
            gap = assert_gap(stream, "history")
            came = [event for event in until(stream, c.mark()) if event.data != MARK]
        kept = [str(event.id) for event in came]
        assert kept == ids[-len(kept) :]
        assert len(kept) <= 10
        assert gap["from"] == ids[3]
        missing = ids[4 : -len(kept)]
        assert missing[-1] <= str(gap["to"]) < kept[0]


def test_a_resume_at_the_edge_of_what_is_kept_is_complete(channel: StartChannel, relay: str) -> None:
    """3.4, 3.5: the cursor itself may be gone, as long as nothing after it is. Where it is, a gap says so, and soon
    `hello` on every node too.
    """
    c = channel(relay=relay, nodes=2, ring_events=10, retain_events=10)
    publisher = c.publisher()
    ids = [publisher.publish(number) for number in range(30)]
    for place, node in itertools.product((-1, -10, -11), c.each()):
        with node.stream(Last_Event_ID=ids[place]) as stream:
            assert control(stream)[1]["complete"] is True
            assert [event.id for event in stream.events(-1 - place)] == ids[30 + place + 1 :]

    def complete(node: Channel) -> object:
        with node.stream(Last_Event_ID=ids[-12]) as stream:
            _, hello = control(stream)
            kind, gap = control(stream)
        assert (kind, gap["reason"], gap["from"]) == ("gap", "history", ids[-12])
        return hello["complete"]

    for node in c.each():
        seconds = 10 if relay.startswith("redis") else 0
        wait_until(lambda node=node: complete(node) is False, seconds, "what was dropped is known")


def test_an_empty_replay_within_a_gap_goes_live(channel: StartChannel, relay: str) -> None:
    """3.4: after a gap without anything kept for this selection, events come."""
    c = channel(relay=relay, ring_events=10, retain_events=10)
    ids = c.publisher().publish_all(numbered(30))
    with c.stream("topic=a", Last_Event_ID=ids[0]) as stream:
        assert_gap(stream, "history")
        live = c.publish("live", topic="a")
        assert stream.events(1)[0].id == live


def test_after_a_restart_the_memory_relay_says_epoch(channel: StartChannel) -> None:
    """3.4, 3.7: nothing of the old log is pretended."""
    c = channel()
    ids = c.publish_all(numbered(5))
    c.node.kill()
    c.node.start()
    new = c.publish("new")
    with c.stream(Last_Event_ID=ids[-1]) as stream:
        gap = assert_gap(stream, "epoch")
        assert gap["from"] == ids[-1]
        assert stream.events(1)[0].id == new


@pytest.mark.parametrize("end", [Node.kill, Node.stop])
def test_after_a_restart_a_lasting_relay_goes_on(channel: StartChannel, lasting_relay: str, end: object) -> None:
    """3.8: with every cursor, and the order goes on above it."""
    c = channel(relay=lasting_relay)
    ids = c.publish_all(numbered(20))
    assert callable(end)
    end(c.node)
    c.node.start()
    later = c.publish("later")
    assert later > ids[-1]
    assert later.split("-")[0] == ids[-1].split("-")[0]
    for place in (0, 7, 19):
        with c.stream(Last_Event_ID=ids[place]) as stream:
            assert control(stream)[1]["complete"] is True
            assert [event.id for event in stream.events(20 - place)] == [*ids[place + 1 :], later]


def test_a_cursor_of_a_quiet_stream_survives_a_restart(channel: StartChannel, lasting_relay: str) -> None:
    """3.8: also before the first publish of the new process."""
    c = channel(relay=lasting_relay)
    first = c.publish("first")
    c.node.kill()
    c.node.start()
    with c.stream(Last_Event_ID=first) as stream:
        assert control(stream)[1]["complete"] is True
    with c.stream() as fresh:
        assert str(control(fresh)[1]["cursor"]) >= first


def test_trimming_survives_a_restart(channel: StartChannel, lasting_relay: str) -> None:
    """3.6, 3.8: what was trimmed before is a gap after, not a complete resume."""
    c = channel(relay=lasting_relay, ring_events=10, retain_events=10)
    ids = c.publish_all(numbered(50))
    c.node.kill()
    c.node.start()
    with c.stream(Last_Event_ID=ids[3]) as stream:
        assert_gap(stream, "history")


def test_a_lasting_log_reaches_further_back_than_the_ring(channel: StartChannel, lasting_relay: str) -> None:
    """3.2: retention is the file's or Redis's, the ring is only its fast end."""
    c = channel(relay=lasting_relay, ring_events=10)
    ids = c.publish_all(numbered(300))
    with c.stream(Last_Event_ID=ids[0]) as stream:
        assert control(stream)[1]["complete"] is True
        assert [event.id for event in stream.events(299)] == ids[1:]


def shifted(event_id: str, by: int) -> str:
    """A cursor so many microseconds from this one."""
    epoch, _, position = event_id.partition("-")
    return f"{epoch}-{int(position, 16) + by:013x}"


def test_a_cursor_ahead_of_the_log_gets_a_gap_and_goes_live(relayed: Channel) -> None:
    """3.4, 3.9: reason `future`; what is published next comes though it is below the cursor."""
    last = relayed.publish("old")
    for cursor in (shifted(last, 3_600_000_000), last.split("-")[0] + "-fffffffffffff"):
        with relayed.stream(Last_Event_ID=cursor) as stream:
            assert_gap(stream, "future")
            live = relayed.publish("live")
            assert stream.events(1)[0].id == live


UNKNOWN = [
    "0", "-1", "18446744073709551616", "null", "undefined", "NaN", "''", "*", "%", "../../etc/passwd", "EARLIEST",
    "ABCDEF-0000000000000", "zzzzzz-000000000000g", "zzzzzz-00000000000000", "zzzzzz0000000000000", "a-0000000000000",
    "urn:uuid:0", "x" * 300, "x" * 4000, "é日😀",
]  # fmt: skip


def test_a_cursor_that_means_nothing_gets_a_gap_and_all_that_is_kept(relayed: Channel) -> None:
    """3.4, 3.9: by header and by query."""
    kept = relayed.publish_all(numbered(3))
    for cursor in UNKNOWN:
        header = cursor.encode().decode("latin-1")
        for stream in (
            relayed.stream(Last_Event_ID=header),
            relayed.stream(f"last_event_id={quote_from_bytes(cursor.encode())}"),
        ):
            with stream:
                assert_gap(stream, "unknown")
                assert [event.id for event in stream.events(3)] == kept, cursor


def test_an_id_of_another_epoch_gets_a_gap_and_all_that_is_kept(relayed: Channel) -> None:
    """3.4, 3.9: whatever its position."""
    kept = relayed.publish_all(numbered(3))
    epoch, position = kept[1].split("-")
    other = ("a" if epoch[0] != "a" else "b") + epoch[1:]
    for cursor in (f"{other}-{position}", f"{other}-0000000000000", f"{other}-fffffffffffff"):
        with relayed.stream(Last_Event_ID=cursor) as stream:
            assert_gap(stream, "epoch")
            assert [event.id for event in stream.events(3)] == kept


def test_without_unknown_cursors_only_live_events_follow(channel: StartChannel, relay: str) -> None:
    """3.4, 3.9: the operator may choose so, the gap stays."""
    c = channel(relay=relay, unknown_cursor="none")
    c.publish("kept")
    with c.stream(Last_Event_ID="nothing like it") as stream:
        assert_gap(stream, "unknown")
        live = c.publish("live")
        assert stream.events(1)[0].id == live


@pytest.fixture(scope="module", params=RELAYS)
def fuzzed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Channel]:
    """A channel with one event, on each relay in turn."""
    folder = tmp_path_factory.mktemp("fuzzed-cursors")
    server = Node(folder, relay=relay_url(request.param, request, folder), redis_prefix="fuzzed").start()
    channel = Channel(server)
    channel.publish("kept")
    yield channel
    channel.close()
    server.kill()
    assert "Traceback" not in server.log()


@settings(max_examples=300)
@given(
    st.one_of(st.binary(max_size=60), st.text(max_size=30).map(lambda text: text.encode("utf-8", "replace"))),
    st.booleans(),
)
def test_no_cursor_is_a_fault(fuzzed: Channel, cursor: bytes, in_header: bool) -> None:
    """3.9: any bytes get a stream with a `hello`; a header that HTTP forbids is refused."""
    header = cursor.translate(None, b"\r\n\0").decode("latin-1")
    stream = (
        fuzzed.stream(Last_Event_ID=header) if in_header else fuzzed.stream(f"last_event_id={quote_from_bytes(cursor)}")
    )
    with stream:
        if in_header and stream.status == 400:
            assert any(ord(character) < 32 or ord(character) == 127 for character in header)
            return
        assert stream.status == 200
        kind, facts = control(stream)
        assert kind == "hello"
        if facts["complete"] is False:
            assert control(stream)[0] == "gap"


def test_long_cursors_are_refused_or_unknown(relayed: Channel) -> None:
    """3.9: beyond the size of a request's head it is refused, below it is unknown; either at once."""
    for size in (8_000, 16_000, 60_000, 200_000):
        with relayed.stream(f"last_event_id={'x' * size}") as stream:
            assert stream.status in (200, 400, 413, 414, 431), stream.head
            if stream.status == 200:
                assert_gap(stream, "unknown")
