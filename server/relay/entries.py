"""How an event becomes an entry of a log. Used by every relay, so that an event has one id and one frame wherever it is
read from.

Cost: one frame and one tuple per event.
"""

from __future__ import annotations

from server.event import Event
from server.frames import encode
from server.ids import format_id
from server.relay.protocol import Entry


def make_entry(epoch: str, position: int, event: Event, time: float) -> Entry:
    """The entry at `position`: the publisher's own id if there is one, else the server's."""
    wire_id = format_id(epoch, position) if event.id is None else event.id
    return Entry(position, wire_id, event, encode(event, wire_id), time)
