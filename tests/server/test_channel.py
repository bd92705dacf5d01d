"""Channels: one step from the log to the feeds, and where a stream with a cursor starts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.channel import Channel, Floors, Start
from server.frames import Encoding
from server.ids import format_id
from server.relay.protocol import Entry, Retention
from server.selection import Selection
from server.selectors import parse_selector
from tests.server.engine import EPOCH, channel, entry

ALL = Selection()
FLOOR, MARK = 100, 200


def filled(*entries: Entry, bound: Retention | None = None, **policy: object) -> Channel:
    one = channel(bound or Retention(0, 0, 0), FLOOR, **policy)
    one.accept(entries, 0.0)
    return one


def located(one: Channel, cursor: str, selection: Selection = ALL, floor: int = FLOOR) -> Start | None:
    start = one.locate(cursor, selection, Floors(floor, floor), MARK)
    return start and start._replace(missed=0)  # what that is to a channel in shards is shown elsewhere


def selecting(text: str, grants: tuple[str, ...] = ()) -> Selection:
    return Selection(frozenset([parse_selector(text)]), grants=tuple(map(parse_selector, grants)))


# --- from the log to the feeds


def test_an_entry_is_in_the_log_and_in_every_feed_that_wants_it_in_one_step() -> None:
    one = channel()
    feeds = [one.enter(selection, Encoding.PLAIN) for selection in (ALL, selecting("a"), selecting("b"))]
    first, second = entry(1, "x", "a"), entry(2, "y", "c")
    assert one.accept([first, second], 7.0) == feeds[:2]
    assert one.log.after(0, 9) == [first, second]
    assert [feed.ring.head for feed in feeds] == [2, 1, 0]
    assert feeds[1].ring.span(0, 99)[0] is first.frame
    assert [feed.last_event for feed in feeds] == [7.0, 7.0, 0.0]
    assert (one.published, one.published_bytes) == (2, len(first.frame + second.frame))


def test_equal_selections_share_a_feed_if_their_transfer_is_the_same_too() -> None:
    one = channel()
    chunked = one.enter(selecting("a"), Encoding.CHUNKED)
    assert one.enter(selecting("a"), Encoding.CHUNKED) is chunked
    assert one.enter(selecting("a"), Encoding.PLAIN) is not chunked
    assert (chunked.members, one.readers, len(one.feeds)) == (2, 3, 2)


def test_a_feed_goes_with_its_last_member() -> None:
    one = channel()
    feed = one.enter(ALL, Encoding.PLAIN)
    one.enter(ALL, Encoding.PLAIN)
    one.depart(feed)
    assert one.accept([entry(1)], 0.0) == [feed]
    one.depart(feed)
    assert one.accept([entry(2)], 0.0) == []
    assert (one.readers, one.feeds) == (0, {})
    assert one.enter(ALL, Encoding.PLAIN) is not feed


def test_a_reader_of_several_templates_with_one_prefix_can_leave() -> None:
    one = channel()
    topics = frozenset(map(parse_selector, ("items/{id}", "items/{name}")))
    one.depart(one.enter(Selection(topics), Encoding.PLAIN))
    assert (one.readers, one.feeds) == (0, {})


# --- where a stream starts


@pytest.mark.parametrize(
    ("cursor", "start"),
    [
        ("", Start(None)),
        ("earliest", Start(FLOOR)),
        (format_id(EPOCH, 150), Start(150, found=True)),
        (format_id(EPOCH, FLOOR), Start(FLOOR, found=True)),
        (format_id(EPOCH, MARK), Start(MARK, found=True)),
        (format_id(EPOCH, FLOOR - 1), Start(FLOOR, gap="history")),
        (format_id(EPOCH, MARK + 1), Start(None, gap="future")),
        (format_id("zzzzzz", 150), Start(FLOOR, gap="epoch")),
        ("anything", Start(FLOOR, gap="unknown")),
        ("EARLIEST", Start(FLOOR, gap="unknown")),
        (format_id(EPOCH, 150).upper(), Start(FLOOR, gap="unknown")),
        ("x" * 100_000, Start(FLOOR, gap="unknown")),
        ("\ufffd\0\n", Start(FLOOR, gap="unknown")),
    ],
)
def test_every_kind_of_cursor_has_its_start(cursor: str, start: Start) -> None:
    assert located(filled(entry(120), entry(180)), cursor) == start


@given(st.text())
def test_any_text_has_a_start(cursor: str) -> None:
    assert located(filled(entry(120)), cursor) is not None


def test_a_cursor_that_nobody_knows_can_mean_live_only() -> None:
    one = filled(entry(120), unknown_cursor="none")
    assert located(one, "anything") == Start(None, gap="unknown")
    assert located(one, format_id("zzzzzz", 150)) == Start(FLOOR, gap="epoch")


def test_a_publishers_own_id_starts_after_its_earliest_occurrence() -> None:
    one = filled(entry(120, id="mine"), entry(130, id="other"), entry(140, id="mine"))
    assert located(one, "mine") == Start(120, found=True)


def test_a_publishers_own_id_of_an_event_that_may_not_be_read_is_unknown() -> None:
    one = filled(
        entry(120, "", "secret", id="mine", private=True), entry(140, "", "open", id="mine"), entry(150, "", "x")
    )
    assert located(one, "mine") == Start(140, found=True)
    assert located(one, "mine", selecting("x", ("secret",))) == Start(120, found=True)
    only_secret = filled(entry(120, "", "secret", id="mine", private=True))
    assert located(only_secret, "mine") == located(only_secret, "never-there")


def test_a_publishers_own_id_is_found_though_it_is_not_selected() -> None:
    assert located(filled(entry(120, "", "a", id="mine")), "mine", selecting("b")) == Start(120, found=True)


def test_a_publishers_own_id_may_look_like_one_of_another_epoch() -> None:
    foreign = format_id("zzzzzz", 5)
    assert located(filled(entry(120, id=foreign)), foreign) == Start(120, found=True)


def test_where_the_relay_remembers_more_than_memory_it_is_asked_for_a_publishers_id() -> None:
    one = filled(*(entry(position, id="mine") for position in (110, 120, 130)), bound=Retention(1, 0, 0))
    assert one.log.floor == 120
    assert located(one, "mine") is None
    assert located(one, "mine", floor=120) == Start(130, found=True)
    assert located(one, format_id(EPOCH, 105)) == Start(105, found=True)


@pytest.mark.parametrize(("secrets", "start"), [(99, Start(299, found=True)), (100, Start(FLOOR, gap="unknown"))])
def test_of_the_events_with_one_id_a_hundred_are_looked_at(secrets: int, start: Start) -> None:
    entries = [entry(110 + number, "", "secret", id="mine", private=True) for number in range(secrets)]
    assert located(filled(*entries, entry(299, id="mine")), "mine") == start
