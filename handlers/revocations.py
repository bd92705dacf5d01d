"""Revocations: ending somebody's rights before their token does, and everybody's to ask for a topic by name.

Owns `POST /revocations`: `{"token": JTI}`, `{"subject": SUB}`, `{"tenant": TENANT}` or `{"topic": TOPIC}`, and for how
many `seconds` (a day by default; as long as the longest life of a token). For tokens with `ringcast.operate`; to others
it does not exist.
"""

from __future__ import annotations

import json

from handlers.answers import Refused, bad, json_response
from handlers.rooms import Rooms
from server.cluster import Cluster
from server.endings import NOT_FOUND
from server.exchange import JSON_TYPE, Request, Response
from server.revocations import KINDS

DEFAULT_SECONDS = 86_400.0
MAX_SECONDS = 30 * 86_400.0
MAX_BODY_BYTES = 32_768  # the longest topic, each byte of it as an escape of JSON


class Revoker:
    """See the module's head."""

    def __init__(self, cluster: Cluster, rooms: Rooms) -> None:
        self._cluster = cluster
        self._rooms = rooms

    async def answer(self, request: Request) -> Response:
        """Revoke. Raises Refused, RelayUnavailable."""
        self._rooms.origins.check(request)
        if not self._rooms.authenticate(request).operate:
            raise Refused(NOT_FOUND)
        kind, value, seconds = _parsed(request)
        try:
            until = await self._cluster.revoke(kind, value, seconds)
        except ValueError as error:
            raise bad(kind, str(error)) from None
        return json_response({kind: value, "until": round(until, 3)})


def _parsed(request: Request) -> tuple[str, str, float]:
    """Kind, value and seconds. Raises Refused."""
    media_type = request.headers.get(b"content-type", b"").decode("latin-1").partition(";")[0].strip().lower()
    if media_type != JSON_TYPE:
        raise bad("Content-Type", f"must be {JSON_TYPE}")
    try:
        facts = json.loads(request.body)
    except (ValueError, RecursionError):
        raise bad("", "is not JSON") from None
    if not isinstance(facts, dict) or not facts.keys() <= {*KINDS, "seconds"}:
        raise bad("", f"must be an object with one of {', '.join(KINDS)}, and seconds")
    kinds = [kind for kind in KINDS if kind in facts]
    if len(kinds) != 1:
        raise bad("", f"must have exactly one of {', '.join(KINDS)}")
    value, seconds = facts[kinds[0]], facts.get("seconds", DEFAULT_SECONDS)
    if not isinstance(value, str):
        raise bad(kinds[0], "must be a string")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= MAX_SECONDS:
        raise bad("seconds", f"must be more than 0 and at most {MAX_SECONDS:.0f}")
    return kinds[0], value, float(seconds)
