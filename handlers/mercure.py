"""The Mercure publish form: from a body to one event of channel `main`.

Owns the rules of the Mercure protocol for publishing that go beyond an event's own: the form, the reserved namespace,
the reserved type. Must never know of tokens. Source: draft-dunglas-mercure-08, "Publication"; docs/protocol.md.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import ada_url

from handlers.answers import bad
from handlers.fields import decoded, parse_form
from server.event import Event, InvalidEvent, check_topics

FORM_TYPE = "application/x-www-form-urlencoded"
HUB_PATH = "/.well-known/mercure"
_HUB_URL = f"http://hub.invalid{HUB_PATH}"
RESERVED_TYPE = "mercure"
# Only a topic with one of these can resolve to the hub's own path: the word itself, something that may decode to it,
# or a reference to the base.
_SUSPICIOUS = re.compile(r"mercure|%|^[?#]")
_UNRESERVED = re.compile(r"%(2[dDeE]|3[0-9]|4[1-9a-fA-F]|5[0-9aAfF]|6[1-9a-fA-F]|7[0-9aAeE])")


class Form(NamedTuple):
    """The fields of a publish as they came; `check_topics` has been done."""

    topics: tuple[str, ...]
    retry_ms: int | None
    fields: dict[str, bytes]


def parse_publish(body: bytes) -> Form:
    """Read a form and check topics and retry, which come before the grants. Raises Refused."""
    topics: list[str] = []
    fields: dict[str, bytes] = {}
    for name, value in parse_form(body):
        if name == "topic":
            topics.append(decoded("topic", value))
        else:
            fields.setdefault(name, value)
    if not topics:
        raise bad("topic", "is needed")
    for topic in topics:
        check_reserved(topic)
    try:
        check_topics(tuple(topics))
    except InvalidEvent as error:
        raise bad(error.field, error.reason, too_large=error.too_large) from None
    return Form(tuple(topics), _retry(fields.get("retry")), fields)


def make_event(form: Form) -> Event:
    """The event of a form that may be published. Raises Refused."""
    fields = form.fields
    data, event_id, kind = fields.get("data", b""), fields.get("id", b""), fields.get("type", b"")
    try:
        event = Event(
            form.topics,
            decoded("data", data),
            decoded("type", kind) or None,
            decoded("id", event_id) or None,
            form.retry_ms,
            "private" in fields,
        )
    except InvalidEvent as error:
        raise bad(error.field, error.reason, too_large=error.too_large) from None
    _check_type(event)
    return event


def check_main(event: Event) -> None:
    """What holds on channel `main` whichever way an event comes to it. Raises Refused."""
    for topic in event.topics:
        check_reserved(topic)
    _check_type(event)


def _check_type(event: Event) -> None:
    if event.type == RESERVED_TYPE:
        raise bad("type", f"{RESERVED_TYPE!r} is reserved")


def _retry(value: bytes | None) -> int | None:
    if not value:
        return None
    if not value.isdigit():
        raise bad("retry", "must be ASCII digits")
    if len(value) > 7:
        raise bad("retry", "must be at most 9999999 milliseconds")
    return int(value)


def check_reserved(topic: str) -> None:
    """Raise Refused for a topic that is empty or resolves to the hub's own path or below it."""
    if not topic:
        raise bad("topic", "must not be empty")
    if _SUSPICIOUS.search(topic) is None:
        return
    try:
        path = str(ada_url.URL(topic, base=_HUB_URL).pathname)
    except ValueError:
        return  # not a URL, also not relative to the hub
    path = ada_url.URL(_UNRESERVED.sub(lambda found: chr(int(found[1], 16)), path), base=_HUB_URL).pathname
    if path == HUB_PATH or path.startswith(HUB_PATH + "/"):
        raise bad("topic", "is in the server's own namespace")
