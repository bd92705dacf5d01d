"""A publisher over HTTP, for any process that reaches a node or the proxy in front.

Owns one connection, kept open between publishes. Not for several threads at once: give each its own. Blocking; in an
asyncio program call it through `asyncio.to_thread`. Cost: one request per call; `publish_many` sends all events in one.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

from ringcast.events import as_json, make_event
from server.commands.posting import Poster
from server.commands.remote import Remote
from server.event import Event

TRIES = 10  # with the waits between them about a minute


class Publisher:
    """Publishes to one channel of the server at `url`. `note` is told of each try that failed."""

    def __init__(
        self,
        url: str,
        *,
        channel: str = "main",
        token: str | None = None,
        tries: int = TRIES,
        note: Callable[[str], None] = lambda text: print(text, file=sys.stderr),
    ) -> None:
        self._poster = Poster(Remote.parse(url), channel, token, tries=tries, note=note)

    def publish(self, topic: str, data: object, *, key: str | None = None, **fields: Any) -> str:
        """Publish one event (see `make_event` for the fields); its id.

        `key` is the idempotency key, a fresh one by default. Raises InvalidEvent before anything is sent, PublishFailed
        if it was refused or the tries are used up: then it may have been published, and the same key settles that.
        """
        body = json.dumps(as_json(make_event(topic, data, **fields)), ensure_ascii=False).encode()
        return self._poster.post(body, "application/json", key)[0]

    def publish_many(self, events: Iterable[Event], *, key: str | None = None) -> list[str]:
        """Publish several events, all or none; their ids. Raises as `publish` does."""
        lines = [json.dumps(as_json(event), ensure_ascii=False) for event in events]
        return self._poster.post("\n".join(lines).encode(), "application/x-ndjson", key) if lines else []

    def close(self) -> None:
        """Close the connection."""
        self._poster.close()

    def __enter__(self) -> Publisher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def publish(
    url: str, topic: str, data: object, *, channel: str = "main", token: str | None = None, **fields: Any
) -> str:
    """Publish one event over a connection of its own; its id. Raises as `Publisher.publish` does."""
    with Publisher(url, channel=channel, token=token) as publisher:
        return publisher.publish(topic, data, **fields)
