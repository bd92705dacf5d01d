"""Requests to applications: JSON, and a token with somebody's claims; and what came of a crowd of them at the door.
Knows no application.
"""

from __future__ import annotations

import json
from typing import Any

from tests.harness.process import Node
from tests.threats.tokens import bearer, signed


def headers_of(claims: dict[str, Any] | None) -> dict[str, str]:
    """What shows who asks: nothing, or a token."""
    return {} if claims is None else {"Authorization": bearer(signed(claims))}


def ask(
    node: Node, method: str, path: str, body: object = None, claims: dict[str, Any] | None = None
) -> tuple[int, dict[str, Any]]:
    """Status and JSON of an answer."""
    headers = {"Content_Type": "application/json"} | headers_of(claims)
    status, _, answer = node.request(method, path, json.dumps(body) if body is not None else "", **headers)
    return status, json.loads(answer) if answer else {}


def handed_over(node: Node) -> float:
    """How many connections the front door has given away: those that have to wait for Redis, and the one that asks."""
    return float(node.get("/metrics")[2].decode().split("\nringcast_door_handed_over_total ")[1].split()[0])
