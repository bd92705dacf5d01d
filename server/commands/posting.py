"""Posting: one publish, tried until it is acknowledged, refused for good, or out of tries.

Owns what may be tried again: no connection, no answer, 429, and what a node or a proxy says while it has no server
behind it (502, 503, 504). Every try of one publish carries the same idempotency key: if an answer was lost on its way,
the next try gets the same ids and publishes nothing. Must never know where events come from.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

from server.commands.backoff import Backoff, retry_after_seconds
from server.commands.remote import EXIT_GAVE_UP, EXIT_REFUSED, Remote, authorisation, exit_code, refusal

ANSWER_SECONDS = 30.0
# Servers close idle connections; one that was idle for longer is not trusted with the next publish.
REUSE_SECONDS = 5.0
AGAIN: Final = frozenset({429, 502, 503, 504})


class PublishFailed(Exception):
    """Not acknowledged. `body` is the server's answer, if there was one; `code` the exit code."""

    def __init__(self, reason: str, code: int, body: bytes = b"") -> None:
        super().__init__(reason)
        self.code = code
        self.body = body


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    retry_after: str | None
    body: bytes


class Poster:
    """Publishes to one channel. `tries` bounds the attempts of one publish; `note` is told of each that failed."""

    def __init__(
        self,
        remote: Remote,
        channel: str,
        token: str | None,
        *,
        tries: int,
        note: Callable[[str], None],
        backoff: Backoff | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._remote = remote
        self._path = remote.events_path(channel)
        self._headers = authorisation(token)
        self._tries = tries
        self._note = note
        self._backoff = backoff or Backoff()
        self._sleep = sleep
        self._connection: http.client.HTTPConnection | None = None
        self._used_at = 0.0

    def post(self, body: bytes, media_type: str, key: str | None = None) -> list[str]:
        """Publish and return the ids. Raises PublishFailed."""
        headers = self._headers | {"Content-Type": media_type, "Idempotency-Key": key or uuid4().hex}
        for failures in range(self._tries):
            answer, problem = self._attempt(body, headers)
            if answer is not None and answer.status == 200:
                return _ids(answer.body)
            if answer is not None and answer.status not in AGAIN:
                raise PublishFailed(refusal(answer.status, answer.body), exit_code(answer.status), answer.body)
            if failures + 1 < self._tries:
                floor = retry_after_seconds(answer.retry_after) if answer is not None else 0.0
                seconds = self._backoff.delay(failures, floor)
                self._note(f"{problem}; trying again in {seconds:.1f} s")
                self._sleep(seconds)
        raise PublishFailed(f"{problem}; gave up after {self._tries} tries", EXIT_GAVE_UP)

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _attempt(self, body: bytes, headers: dict[str, str]) -> tuple[_Answer | None, str]:
        """The answer, and what is wrong if it is to be tried again."""
        try:
            answer = self._exchange(body, headers)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            return None, f"no answer from {self._remote.host}: {describe(error)}"
        return answer, refusal(answer.status, answer.body)

    def _exchange(self, body: bytes, headers: dict[str, str]) -> _Answer:
        if self._connection is not None and time.monotonic() - self._used_at > REUSE_SECONDS:
            self.close()
        if self._connection is None:
            self._connection = self._remote.connection(ANSWER_SECONDS)
        self._connection.request("POST", self._path, body, headers)
        response = self._connection.getresponse()
        answer = _Answer(response.status, response.getheader("Retry-After"), response.read())
        self._used_at = time.monotonic()
        return answer


def describe(error: Exception) -> str:
    """An error of the network in a few words."""
    if isinstance(error, TimeoutError):
        return "it took too long"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _ids(body: bytes) -> list[str]:
    try:
        ids = json.loads(body)["ids"]
    except (ValueError, TypeError, KeyError):
        ids = None
    if not isinstance(ids, list):
        raise PublishFailed("the answer is not Ringcast's: is this the right --url?", EXIT_REFUSED)
    return [str(event_id) for event_id in ids]
