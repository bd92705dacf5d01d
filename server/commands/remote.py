"""The server that a client command talks to: its address, and connections to it.

Owns the reading of the address and of what is said in JSON, the exit codes of refusals, and the sentence for one.
Follows no redirect: it would carry the token to whoever sent it.
"""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

EXIT_REFUSED: Final = 1
EXIT_NO_RIGHT: Final = 3
EXIT_NOT_FOUND: Final = 4
EXIT_GAVE_UP: Final = 5

CONNECT_SECONDS = 10.0
MAX_ANSWER_BYTES = 64 * 1024  # the most that is read of an answer that is no stream
MAX_REASON_CHARACTERS = 300


class InvalidAddress(ValueError):
    """Not the address of a server. The text follows after the address."""


@dataclass(frozen=True, slots=True)
class Remote:
    """A server's address. `prefix` is the path below which a proxy shows it."""

    secure: bool
    host: str
    port: int | None
    prefix: str

    @classmethod
    def parse(cls, url: str) -> Remote:
        """Read `http://HOST:PORT/PREFIX`. Raises InvalidAddress."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            raise InvalidAddress("is not a URL") from None
        if (
            parts.scheme not in ("http", "https")
            or not host
            or not url.isascii()
            or not url.isprintable()
            or " " in url
        ):
            raise InvalidAddress("must be http://HOST:PORT or https://HOST")
        if parts.username is not None or parts.query or parts.fragment:
            raise InvalidAddress("must be no more than scheme, host, port and path; a token goes with --token")
        return cls(parts.scheme == "https", host, port, parts.path.rstrip("/"))

    def connection(self, seconds: float = CONNECT_SECONDS) -> http.client.HTTPConnection:
        """A connection yet to be opened; `seconds` bound each wait for the network."""
        kind = http.client.HTTPSConnection if self.secure else http.client.HTTPConnection
        return kind(self.host, self.port, timeout=seconds)

    def events_path(self, channel: str) -> str:
        """Where a channel's events are published and read."""
        return f"{self.prefix}/channels/{channel}/events"


def authorisation(token: str | None) -> dict[str, str]:
    """The header that carries the token, if there is one."""
    return {} if token is None else {"Authorization": f"Bearer {token}"}


def exit_code(status: int) -> int:
    """The exit code for a status that is final."""
    return {401: EXIT_NO_RIGHT, 403: EXIT_NO_RIGHT, 404: EXIT_NOT_FOUND}.get(status, EXIT_REFUSED)


def refusal(status: int, body: bytes) -> str:
    """A refusal in one sentence, from the server's JSON if that is what came."""
    advice = {401: "a valid token is needed (--token, RINGCAST_TOKEN)", 403: "the token does not grant this"}.get(
        status
    )
    field, reason = _explanation(body)
    said = f"{field}: {reason}" if field and reason else reason
    known = http.client.responses.get(status, "")
    return ": ".join(part for part in (f"{status} {known}".strip(), visible(said) or advice) if part)


def _explanation(body: bytes) -> tuple[str, str]:
    answer = json_object(body)
    return str(answer.get("field", "")), str(answer.get("reason", ""))[:MAX_REASON_CHARACTERS]


def json_object(text: str | bytes) -> dict[str, object]:
    """The object that is written there; {} if it is none."""
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def visible(text: str) -> str:
    """`text` on one line and without characters that a terminal would obey."""
    return text if text.isprintable() else "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
