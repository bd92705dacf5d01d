"""Where prices come from: an API of the Old School RuneScape real-time prices' form.

Owns the interface of a source, and the client of such an API: `/latest` has both sides of all items' prices, `/mapping`
their names. Must never decide what is news, or when to ask (sync.py does).

The etiquette of that API: one request for all items; a `User-Agent` that says who asks and how to reach them; packed
answers; whoever is refused waits, as long as told.

Invariants: every wait has a limit, and so has an answer, packed and unpacked; a redirect is a failure, for the address
is an operator's; what can't be read is counted and left out, item by item. Only `SourceFailed` escapes.
Cost: 4,000 items take 10 ms to read, in pieces of `PIECE` items between which others get their turn.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import ujson
from tornado.httpclient import HTTPError, HTTPRequest, HTTPResponse
from tornado.httputil import HTTPInputError
from tornado.iostream import StreamClosedError
from tornado.simple_httpclient import HTTPTimeoutError, SimpleAsyncHTTPClient

from apps.prices.model import MAX_ITEM, MAX_PRICE, Point, Price, Quote
from apps.prices.tables import NAME_CHARACTERS

MAX_BODY_BYTES = 8 * 1024 * 1024
MAX_ITEMS = 50_000
MAX_WAIT_SECONDS = 3_600.0
CONNECT_SECONDS = 5.0
# A trade that is later than this from now is left out: as the newest one known it would stay for ever.
AHEAD_SECONDS = 3_600
PIECE = 500
# What a failure may be called, in metrics too.
FAILURES = ("unreachable", "timeout", "status", "unreadable")


class SourceFailed(Exception):
    """There was no usable answer. `kind` is one of `FAILURES`; `wait_seconds` is what the other side asks for."""

    def __init__(self, kind: str, reason: str, wait_seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason
        self.wait_seconds = wait_seconds


@dataclass(slots=True)
class Latest:
    """An answer: what was read, and how many entries could not be."""

    quotes: dict[int, Quote]
    unusable: int = 0


# Points, each with the seconds that it stands for (0: a single change).
Past = Sequence[tuple[int, Point]]


class Source(Protocol):
    """Where prices come from. `seconds` is how often to look."""

    simulated: bool
    seconds: float

    def begin(self, known: Mapping[int, Price]) -> None:
        """It is this node's turn: so things stand."""

    def brought(self, known: Mapping[int, Price]) -> Iterator[tuple[Price, Past]]:
        """Items that are not there yet, with their past."""

    async def latest(self) -> Latest:
        """All prices. Raises SourceFailed."""

    async def names(self) -> Mapping[int, str]:
        """What items are called. Raises SourceFailed."""

    def close(self) -> None:
        """Let go of connections."""


class Upstream:
    """The API at `address`; `contact` is whom its operators may write to."""

    simulated = False

    def __init__(self, address: str, contact: str, *, seconds: float, answer_seconds: float) -> None:
        self._address = address
        self._agent = f"Ringcast ({contact})" if contact else "Ringcast"
        self._answer_seconds = answer_seconds
        self.seconds = seconds
        self._client = SimpleAsyncHTTPClient(force_instance=True, max_body_size=MAX_BODY_BYTES, max_clients=2)

    def begin(self, known: Mapping[int, Price]) -> None:
        """See Source: what is known makes no difference to what is asked."""

    def brought(self, known: Mapping[int, Price]) -> Iterator[tuple[Price, Past]]:  # noqa: ARG002 (see Source)
        """See Source: this API has no past."""
        return iter(())

    async def latest(self) -> Latest:
        """See Source."""
        answer = await self._get("/latest")
        entries = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(entries, dict) or len(entries) > MAX_ITEMS:
            raise SourceFailed("unreadable", "the answer is not of the form of /latest")
        latest, latest_time = Latest({}), int(time.time()) + AHEAD_SECONDS
        for number, (item_id, entry) in enumerate(entries.items()):
            if number % PIECE == PIECE - 1:
                await asyncio.sleep(0)
            try:
                latest.quotes[_item(item_id)] = _quote(entry, latest_time)
            except (ValueError, TypeError):
                latest.unusable += 1
        if entries and not latest.quotes:
            raise SourceFailed("unreadable", "no entry of the answer can be read")
        return latest

    async def names(self) -> Mapping[int, str]:
        """See Source."""
        answer = await self._get("/mapping")
        if not isinstance(answer, list) or len(answer) > MAX_ITEMS:
            raise SourceFailed("unreadable", "the answer is not of the form of /mapping")
        return dict(_names(answer))

    async def _get(self, path: str) -> Any:
        request = HTTPRequest(
            self._address + path,
            user_agent=self._agent,
            headers={"Accept": "application/json"},
            connect_timeout=min(CONNECT_SECONDS, self._answer_seconds),
            request_timeout=self._answer_seconds,
            follow_redirects=False,
            decompress_response=True,
        )
        try:
            response = await self._client.fetch(request, raise_error=False)
            if response.code == 599 and response.error is not None:
                raise response.error
            if response.code != 200:
                raise SourceFailed("status", f"the answer is HTTP status {response.code}", _asked_wait(response))
            return ujson.loads(response.body.decode())
        except HTTPTimeoutError:
            raise SourceFailed("timeout", f"no answer within {self._answer_seconds:g} s") from None
        except (HTTPInputError, StreamClosedError, HTTPError):
            raise SourceFailed("unreadable", "the answer breaks off, is not HTTP or is too large") from None
        except (ValueError, RecursionError):
            raise SourceFailed("unreadable", "the answer is not JSON") from None
        except OSError:
            raise SourceFailed("unreachable", "there is no connection") from None

    def close(self) -> None:
        """See Source."""
        self._client.close()


def _asked_wait(response: HTTPResponse) -> float:
    """What `Retry-After` says, in seconds. Dates are not looked at: the backoff will do."""
    text = response.headers.get("Retry-After", "")
    return min(float(text), MAX_WAIT_SECONDS) if text.isascii() and text.isdigit() and len(text) < 10 else 0.0


def _item(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise ValueError(text)
    return int(text)


def _quote(entry: Any, latest_time: int) -> Quote:
    if not isinstance(entry, dict):
        raise TypeError
    return Quote(
        _whole(entry.get("high"), MAX_PRICE),
        _whole(entry.get("low"), MAX_PRICE),
        _whole(entry.get("highTime"), latest_time),
        _whole(entry.get("lowTime"), latest_time),
    )


def _whole(value: object, most: int) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise ValueError
    return value


def _names(entries: list[Any]) -> Iterator[tuple[int, str]]:
    for entry in entries:
        if isinstance(entry, dict):
            item_id, name = entry.get("id"), entry.get("name")
            if isinstance(item_id, int) and 0 <= item_id <= MAX_ITEM and isinstance(name, str):
                yield item_id, _readable(name)


def _readable(name: str) -> str:
    """What databases take: no NUL, no half of a surrogate pair."""
    return name.encode("utf-8", "replace").decode().replace("\x00", "")[:NAME_CHARACTERS]
