"""Entries in Redis, as text: nodes of different releases read each other's."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from server.event import Event
from server.relay.redis_entries import entry_of, pack
from tests.server.engine import EPOCH

PLACES = st.tuples(st.floats(-90, 90), st.floats(-180, 180))


def read(payload: str) -> Event:
    return entry_of(EPOCH, (b"7-0", {b"e": payload.encode()})).event


def test_an_event_without_a_location_looks_as_it_did_before_there_were_any() -> None:
    payload, size, own_id = pack(Event(("a", "b"), "x", "t", "mine", 5, True))
    assert payload == '[["a","b"],"t","mine",5,true,"x"]'
    assert (size, own_id) == (len(payload) + 60, "mine")


def test_a_location_stands_behind_the_rest() -> None:
    payload, _, _ = pack(Event(("a",), "x", location=(6.5244, 3.3792)))
    assert payload == '[["a"],null,null,null,false,"x",[6.5244,3.3792]]'


def test_what_was_written_before_there_were_locations_is_read() -> None:
    assert read('[["a","b"],"t",null,5,true,"x"]') == Event(("a", "b"), "x", "t", None, 5, True)


@given(st.none() | PLACES)
def test_what_is_packed_is_read_back_to_the_last_digit(place: tuple[float, float] | None) -> None:
    sent = Event(("a",), "x", location=place)
    payload, _, _ = pack(sent)
    assert read(payload) == sent
    assert len(json.loads(payload)) == (6 if place is None else 7)
