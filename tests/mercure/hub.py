"""A Mercure client for tests: publishes forms, mints tokens, opens streams, and tells what a subscription received up
to a mark.

Knows the endpoint's path and fields, and nothing of the server behind it. Fields are sent as given: bytes that are
no UTF-8 stay what they are.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote, urlencode

import jwt

from tests.harness.process import TOKEN_SECRET, Node
from tests.harness.stream import Block, Stream

PATH = "/.well-known/mercure"
FORM = "application/x-www-form-urlencoded"
ORIGIN = "https://app.example"

Field = tuple[str, str | bytes]


def token(
    *,
    publish: list[str] | None = None,
    subscribe: list[str] | None = None,
    secret: str = TOKEN_SECRET,
    **claims: object,
) -> str:
    """A draft-07 token. A right that is None is left out of the claim."""
    rights = {name: value for name, value in (("publish", publish), ("subscribe", subscribe)) if value is not None}
    return jwt.encode({"mercure": rights} | claims, secret, "HS256")


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer that is not a stream."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode("utf-8")

    @property
    def error(self) -> dict[str, str]:
        """The fields of an error: code, field, reason."""
        fields = json.loads(self.body)
        assert isinstance(fields, dict), fields
        return fields

    @property
    def refused_field(self) -> str:
        """The name of the form field that a 400 or 413 complains of."""
        return self.error.get("field", "")


class Hub:
    """One node as a Mercure hub. `publisher` is the token that `publish` and marks use, None in development mode."""

    def __init__(self, node: Node, publisher: str | None = None) -> None:
        self.node = node
        self.publisher = publisher
        self.streams: list[Stream] = []

    def close(self) -> None:
        """Close every stream that was opened here."""
        for stream in self.streams:
            stream.close()

    def post(self, body: bytes | str, **headers: str) -> Answer:
        """A POST of these bytes; the publisher's token unless the caller brings an Authorization or a Cookie."""
        if self.publisher and not {"Authorization", "Cookie"} & headers.keys():
            headers["Authorization"] = f"Bearer {self.publisher}"
        return Answer(*self.node.request("POST", PATH, body, **({"Content_Type": FORM} | headers)))

    def offer(self, fields: Iterable[Field], **headers: str) -> Answer:
        """A POST of form fields, whatever the answer."""
        return self.post(urlencode(list(fields)), **headers)

    def publish(self, topic: str | list[str], data: str | bytes = "", **fields: str) -> str:
        """Publish and return the id."""
        topics = [topic] if isinstance(topic, str) else topic
        answer = self.offer([("topic", name) for name in topics] + [("data", data), *fields.items()])
        assert answer.status == 200, answer
        return answer.text

    def get(self, query: str | Iterable[Field] = "", path: str = PATH, **headers: str) -> Answer:
        """A GET of which the answer is not a stream."""
        text = query if isinstance(query, str) else urlencode(list(query))
        return Answer(*self.node.get(f"{path}?{text}" if text else path, **headers))

    def subscribe(self, query: str | Iterable[Field], **headers: str) -> Stream:
        """A stream; which status it has is for the caller to see."""
        text = query if isinstance(query, str) else urlencode(list(query))
        self.streams.append(Stream(self.node.port, f"{PATH}?{text}", **headers))
        return self.streams[-1]

    def watch(self, query: str | Iterable[Field], **headers: str) -> Watch:
        """A subscription that also selects a mark of its own, so that what did not come can be told from what has not
        come yet.
        """
        mark = f"https://marks.example/{len(self.streams)}-{time.monotonic_ns()}"
        text = query if isinstance(query, str) else urlencode(list(query))
        stream = self.subscribe("&".join(filter(None, (text, f"match={quote(mark, safe='')}"))), **headers)
        assert stream.status == 200, (stream.status, stream.received)
        return Watch(self, stream, mark)


class Watch:
    """A stream and its mark."""

    def __init__(self, hub: Hub, stream: Stream, mark: str) -> None:
        self.hub = hub
        self.stream = stream
        self.mark = mark

    @property
    def headers(self) -> dict[str, str]:
        return self.stream.headers

    def hello(self) -> dict[str, object]:
        """The facts of the first event, which must be `hello`."""
        first = self.stream.next_event()
        assert first.type == "hello", first
        return dict(json.loads(first.data or ""))

    def events(self) -> list[Block]:
        """Everything up to a mark that is published now, without `hello`."""
        mark_id = self.hub.publish(self.mark, "mark")
        found: list[Block] = []
        while (block := self.stream.next_event()).id != mark_id:
            found.append(block)
        return [block for block in found if block.type != "hello"]

    def data(self) -> list[str | None]:
        """What `events` carried."""
        return [block.data for block in self.events()]
