"""What tests of `companies` have in common: tokens, events, streams, and what the endpoints say."""

from __future__ import annotations

import json
from typing import Any

from tests.apps.asking import ask, headers_of
from tests.faults.witnesses import Attempt
from tests.harness.process import Node, wait_until
from tests.harness.stream import Block, Stream

GENERAL = "/channels/companies/events"
STATS, HEALTH, FLAGS = "/stream/stats", "/stream/health", "/stream/companies"
OPERATOR = {"sub": "ops", "ringcast": {"operate": True, "companies": {"publish": ["*"], "subscribe": ["*"]}}}


def of(company: str) -> dict[str, Any]:
    """The claims of somebody of this company."""
    return {"sub": f"somebody of {company}", "company": company}


def path_of(company: str, query: str = "") -> str:
    return f"/stream/updates?companyId={company}{query}"


def opened(node: Node, company: str, claims: dict[str, Any] | None = None, query: str = "", **headers: str) -> Attempt:
    """A company's stream that has begun."""
    stream = Attempt(node.port, path_of(company, query), seconds=20, **headers_of(claims), **headers)
    assert stream.status == 200, stream.body()
    assert stream.next_event().type == "hello"
    return stream


def metric(company: str, value: float = 0.85) -> dict[str, Any]:
    """A body of the seed's document."""
    return {"companyId": company, "metricName": "integration_score", "value": value}


def publish(node: Node, company: str, *values: float) -> list[str]:
    """Events of a company, through the general endpoint; their ids."""
    events = [
        {
            "topic": f"companies/{company}",
            "type": "metric_updated",
            "data": json.dumps(metric(company, value)),
            "private": True,
        }
        for value in values
    ]
    headers = {"Content_Type": "application/x-ndjson"} | headers_of(OPERATOR)
    body = "\n".join(map(json.dumps, events))
    status, _, answer = node.request("POST", GENERAL, body, **headers)
    assert status == 200, answer
    ids: list[str] = json.loads(answer)["ids"]
    return ids


def data(block: Block) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(block.data or "")
    return found


def values(stream: Stream, count: int) -> list[Any]:
    """The values of the next events."""
    return [data(block)["value"] for block in stream.events(count, 20)]


def until_stats(node: Node, claims: dict[str, Any] | None, **wanted: dict[str, int]) -> dict[str, Any]:
    """Wait until the numbers by company (`connections`, `replay`) are these; the statistics."""
    found: dict[str, Any] = {}

    def agree() -> bool:
        found.update(ask(node, "GET", STATS, claims=claims)[1])
        numbers = {
            "connections": found["connections"]["connectionsByCompany"],
            "replay": found["replayCache"]["eventsByCompany"],
        }
        return all(numbers[name] == by_company for name, by_company in wanted.items())

    try:
        wait_until(agree, 20)
    except AssertionError:
        raise AssertionError(f"{wanted} wanted, {found} found") from None
    return found
