"""Companies: what is one, what its events are called, how its figures are written. Pure.

Owns the names: topics, types, subjects, the form of a company's id. Must never know of databases, requests or who asks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeGuard

from pydantic import Field, StrictBool

from apps.moments import written
from handlers.endpoints import Answer, Body, Query
from handlers.fields import MAX_LAST

METRIC, SROI, VIS, JOURNEY = "metric_updated", "sroi_updated", "vis_updated", "journey_flag_updated"
EVENTS: Mapping[str, str] = {
    METRIC: "a metric was calculated: companyId, metricName, value, …",
    SROI: "the social return on investment was calculated: companyId, …",
    VIS: "a Q2Q analysis was completed: companyId, …",
    JOURNEY: "the stage of a user's journey has changed: companyId, userId, flag, …",
}
# Told to nodes, not to companies: a flag has changed, look at the database.
FLAG = "streaming_flag"
SUBJECTS = ("metrics.*", "journey.*", "q2q.*")

MAX_ID_CHARACTERS = 128
_ID = re.compile(rf"[A-Za-z0-9._:@-]{{1,{MAX_ID_CHARACTERS}}}", re.ASCII)
_TOPICS = "companies/"


class StreamQuery(Query):
    """Parameters of the stream, beside a token."""

    companyId: str = Field(description="The company whose events are wanted.")
    lastEventId: str | None = Field(None, description="The id of the last event that was received.")
    last: Annotated[int, Field(ge=1, le=MAX_LAST)] | None = Field(
        None, description="Without lastEventId: begin with the last so many events."
    )


class Flag(Body):
    """Whether a company's events are streamed."""

    streaming: StrictBool


class Connections(Answer):
    """Streams that are open."""

    totalConnections: int
    activeCompanies: int
    connectionsByCompany: dict[str, int]


class ReplayCache(Answer):
    """Events that can be replayed."""

    companies: int
    totalEvents: int
    eventsByCompany: dict[str, int]


class Stats(Answer):
    """The answer of /stream/stats."""

    connections: Connections
    replayCache: ReplayCache
    timestamp: str


class Streaming(Answer):
    """Whether there is streaming for who asks. The numbers are for operators and companies."""

    enabled: bool
    activeConnections: int | None = None
    activeCompanies: int | None = None


class StreamingHealth(Answer):
    """The answer of /stream/health."""

    status: Literal["ok", "degraded"]
    streaming: Streaming
    timestamp: str


class CompanyFlag(Answer):
    """A company's flag, and when it was set."""

    companyId: str
    streaming: bool
    changed: str


class CompanyFlags(Answer):
    """Flags, by company."""

    companies: list[CompanyFlag]
    limit: int
    offset: int


def is_company(value: object) -> TypeGuard[str]:
    """True for what can be a company's id."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def topic_of(company: str) -> str:
    """The one topic of a company's events. They are private: who may read them is granted it."""
    return _TOPICS + company


def company_of(topic: str) -> str | None:
    """The company whose topic this is."""
    return topic.removeprefix(_TOPICS) if topic.startswith(_TOPICS) else None


def flag_topic(company: str) -> str:
    """The topic of what is said of a company's flag."""
    return f"flags/{company}"


def scoped(counts: Mapping[str, int], company: str | None) -> dict[str, int]:
    """Of counts by company those that are not 0, of one company alone if one is named."""
    return {name: count for name, count in counts.items() if count and company in (None, name)}


def stats_of(streams: Mapping[str, int], events: Mapping[str, int], now: float) -> Stats:
    """The statistics, of counts by company."""
    return Stats(
        connections=Connections(
            totalConnections=sum(streams.values()), activeCompanies=len(streams), connectionsByCompany=dict(streams)
        ),
        replayCache=ReplayCache(companies=len(events), totalEvents=sum(events.values()), eventsByCompany=dict(events)),
        timestamp=written(now),
    )


def health_of(status: str, enabled: bool, streams: Mapping[str, int] | None, now: float) -> dict[str, Any]:
    """The answer of /stream/health; without numbers if `streams` is None."""
    facts: dict[str, Any] = {"enabled": enabled}
    if streams is not None:
        facts |= {"activeConnections": sum(streams.values()), "activeCompanies": len(streams)}
    return {"status": status, "streaming": facts, "timestamp": written(now)}
