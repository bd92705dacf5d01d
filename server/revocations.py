"""Revocations: whose rights ended before their tokens do, and which topics nobody may ask for by name.

Owns the marks that are revoked, each until a time after which no token that carries it can be valid any more. A mark is
`token` and a token's `jti`, `subject` and its `sub`, or `tenant` and its `tenant`; or `topic` and a selector's text.
Must never know how marks reach the other nodes, or of connections. Pure: the caller brings the time.

Invariant: at most `MAX_REVOKED` marks are held; past that the one that ends first goes. Cost: a look-up per request,
and per selector of a stream that opens, while something is revoked; nothing otherwise, and nothing per event.

Tried and rejected: to keep a revoked topic from readers of a template or of `*` too. It costs a look at every event for
every feed, or ends streams that have more to read than this topic, and whose holder's rights were never about it alone.
"""

from __future__ import annotations

from collections.abc import Iterable

from server.event import is_safe
from server.selectors import exact_selector

HOLDERS = ("token", "subject", "tenant")
TOPIC = "topic"
KINDS = (*HOLDERS, TOPIC)
MAX_REVOKED = 100_000
MAX_MARK_CHARACTERS = 256


def mark_of(kind: str, value: str) -> str:
    """The mark of a token's id, a subject, a tenant or a topic. Raises ValueError with the reason."""
    if kind not in KINDS:
        raise ValueError(f"must be one of {', '.join(KINDS)}")
    if kind == TOPIC:
        if exact_selector(value).any:
            raise ValueError("must be one topic: who reads everything is a subject")
        return f"{kind} {value}"
    if not value or len(value) > MAX_MARK_CHARACTERS or not is_safe(value):
        raise ValueError(f"must be 1 to {MAX_MARK_CHARACTERS} characters without control or format characters")
    return f"{kind} {value}"


class Revocations:
    """See the module's head. Times are unix seconds."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._until)

    def add(self, mark: str, until: float) -> None:
        """Revoke a mark, at least until then."""
        self._until[mark] = max(until, self._until.get(mark, 0.0))
        if len(self._until) > MAX_REVOKED:
            del self._until[min(self._until, key=self._until.__getitem__)]

    def holds(self, marks: Iterable[str], now: float) -> bool:
        """True if one of these marks is revoked now."""
        until = self._until
        return bool(until) and any(until.get(mark, 0.0) > now for mark in marks)

    def expire(self, now: float) -> None:
        """Called now and then: forget what is over."""
        for mark in [mark for mark, until in self._until.items() if until <= now]:
            del self._until[mark]
