"""Events as publishers make them: data may be anything that JSON knows.

Owns the reading of a publisher's arguments as an `Event`, which is valid from birth on.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from server.event import Event


def make_event(
    topic: str | Sequence[str],
    data: object,
    *,
    type: str | None = None,  # noqa: A002 - the field's name
    id: str | None = None,  # noqa: A002 - the field's name
    retry_ms: int | None = None,
    private: bool = False,
    location: tuple[float, float] | None = None,
) -> Event:
    """An event; `data` is text, or else what it is in JSON; `location` is latitude and longitude, in degrees. Raises
    InvalidEvent, and TypeError for what JSON does not know."""
    topics = (topic,) if isinstance(topic, str) else tuple(topic)
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return Event(topics, text, type, id, retry_ms, private, location)


def as_json(event: Event) -> dict[str, Any]:
    """The event as `POST /channels/…/events` takes it."""
    place = None if event.location is None else dict(zip(("latitude", "longitude"), event.location, strict=True))
    optional = (
        ("type", event.type),
        ("id", event.id),
        ("retry", event.retry_ms),
        ("private", event.private or None),
        ("location", place),
    )
    return {"topics": list(event.topics), "data": event.data} | {
        name: value for name, value in optional if value is not None
    }
