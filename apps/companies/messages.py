"""Messages from NATS, and the events of companies that they become. Pure.

Owns the function that mappings name: `apps.companies.messages:publications`. Must never know which way a message came.

Invariant: an event has the topic of one company and is private; what names no valid company is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from apps.companies.model import JOURNEY, METRIC, SROI, VIS, is_company, topic_of
from bridges.mapping import Message, Publication, Unmappable
from handlers.answers import dumps
from server.event import Event

CHANNEL = "companies"
_TYPES = {"metrics": METRIC, "journey": JOURNEY, "q2q": VIS}


def publications(message: Message) -> Sequence[Publication]:
    """The event of a message: its body, under the type that its subject says. Raises Unmappable."""
    body = message.json()
    if not isinstance(body, dict):
        raise Unmappable("body", "is no object")
    company = body.get("companyId")
    if isinstance(company, int) and not isinstance(company, bool):
        company = str(company)
    if company is None:
        raise Unmappable("companyId", "is missing")
    if not is_company(company):
        raise Unmappable("companyId", "is no company's id")
    data = _written(body | {"companyId": company})
    return [Publication(CHANNEL, Event((topic_of(company),), data, type_of(message.source, body), private=True))]


def type_of(subject: str, body: dict[str, Any]) -> str:
    """The type of a subject's event. Raises Unmappable."""
    family, _, what = subject.partition(".")
    kind = _TYPES.get(family)
    if kind is None:
        raise Unmappable("subject", "is not of metrics, journey or q2q")
    if kind == METRIC and (what.startswith("sroi") or str(body.get("metricName", "")).lower().startswith("sroi")):
        return SROI
    return kind


def _written(body: dict[str, Any]) -> str:
    """The body as JSON in one line: a NaN or half a surrogate pair, which a lenient parser lets in, goes no further."""
    try:
        return dumps(body).decode()
    except (ValueError, OverflowError, RecursionError):
        raise Unmappable("body", "cannot be written as JSON") from None
