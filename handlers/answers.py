"""Answers: refusals and JSON responses, one form for all of the surface.

Owns the shape of an error and the choice between "200, retry, reason, end" and a status code (contract, Never
stranded). Must never know of Tornado.
"""

from __future__ import annotations

from collections.abc import Mapping

import ujson

from server.endings import BAD_REQUEST, FORBIDDEN, UNAUTHORIZED, Ending
from server.exchange import Request, Response

NO_STORE = ("Cache-Control", "no-store")
NOSNIFF = ("X-Content-Type-Options", "nosniff")
NO_REFERRER = ("Referrer-Policy", "no-referrer")
COMMON_HEADERS = [NO_STORE, NOSNIFF, NO_REFERRER]


class Refused(Exception):
    """A request that is not served. `status` overrides the ending's (413, 409); `challenge` is a WWW-Authenticate
    value; `beside` are fields of the body after this server's own, where an application's clients know another form."""

    def __init__(
        self,
        ending: Ending,
        field: str = "",
        reason: str = "",
        *,
        status: int = 0,
        code: str = "",
        challenge: str | None = None,
        more: object = None,
        beside: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(reason or ending.reason)
        self.ending = ending
        self.field = field
        self.reason = reason or ending.reason
        self.status = status or ending.status
        self.code = code or ending.code
        self.challenge = challenge
        self.more = more
        self.beside = beside or {}


def bad(field: str, reason: str, *, too_large: bool = False) -> Refused:
    """A 400 (413 for a size limit) that names the field and the reason."""
    return Refused(BAD_REQUEST, field, reason, status=413 if too_large else 0, code="too_large" if too_large else "")


def missing_token() -> Refused:
    """No token where one is needed: a challenge without an error code."""
    return Refused(UNAUTHORIZED, challenge="Bearer")


def missing_grant(reason: str) -> Refused:
    """A token that does not grant this."""
    return Refused(FORBIDDEN, reason=reason, challenge='Bearer error="insufficient_scope"')


def json_response(value: object, status: int = 200) -> Response:
    """A JSON answer that is never cached."""
    return Response(status, dumps(value), headers=list(COMMON_HEADERS))


def dumps(value: object) -> bytes:
    """JSON as it is written everywhere: UTF-8, slashes as they are. Raises UnicodeEncodeError for a lone surrogate."""
    return ujson.dumps(value, ensure_ascii=False, escape_forward_slashes=False, allow_nan=False).encode()


def wants_event_stream(request: Request) -> bool:
    """True for a client that says that it speaks event streams, as every EventSource does."""
    return b"text/event-stream" in request.headers.get(b"accept", b"").lower()


def refusal_response(refused: Refused, request: Request, *, stream: bool) -> Response:
    """The answer to a refused request. `stream`: it asked for a stream, so an EventSource must not be stranded."""
    ending = refused.ending
    retry_ms = ending.jittered_retry_ms()
    if stream and ending.reconnect and wants_event_stream(request):
        return Response(
            200,
            ending.farewell(retry_ms),
            "text/event-stream",
            [("Cache-Control", "no-store, no-transform"), ("X-Accel-Buffering", "no"), NOSNIFF, NO_REFERRER],
        )
    if refused.status == 204:
        return Response(204, headers=list(COMMON_HEADERS))
    body: dict[str, object] = {"code": refused.code}
    if refused.field:
        body["field"] = refused.field
    body["reason"] = refused.reason
    if refused.more is not None:
        body["errors"] = refused.more
    body |= refused.beside
    response = json_response(body, refused.status)
    if ending.reconnect:
        response.headers.append(("Retry-After", str(max(1, round(retry_ms / 1000)))))
    if refused.challenge is not None:
        response.headers.append(("WWW-Authenticate", refused.challenge))
    return response
