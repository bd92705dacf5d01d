"""Monitors of two tenants and everybody who reads of them, for the checker of faults.

What is acknowledged is what the worker has stored: the checks in the monitors' histories, and behind the check that
opened it each incident. The account is taken when the monitors are paused: nothing is stored from then on, so that what
is stored is told in the end, and what is told is stored. Must know no fault.
Invariant: an incident that opened is the only one of its monitor and rule (its event tells no more).
"""

from __future__ import annotations

import json
from typing import Any

from tests.apps.audience import Audience, Key
from tests.apps.monitoring import Site, Tenant, register
from tests.faults.checker import History
from tests.harness.process import Node
from tests.harness.stream import Block

MOST_CHECKS = 500  # of a monitor, that are asked for
CHECK, CREATED = "monitor_check", "incident_created"


class Watched(Audience):
    """So many monitors of `tenant`, and one of `other`, all of one site."""

    def __init__(self, node: Node, site: Site, seed: int, monitors: int = 3) -> None:
        self.tenant, self.other = register(node), register(node)
        self.monitors = [self.tenant.monitor(site.url(f"/{number}"))["id"] for number in range(monitors)]
        self.other.monitor(site.url("/other"))
        super().__init__([node.port], key_of, self.tenant.path, self.other.path, seed=seed)

    def pause(self) -> None:
        """From now on nothing is stored."""
        for tenant in (self.tenant, self.other):
            for monitor in tenant.get("/api/v1/monitors")["monitors"]:
                answer = tenant.ask("PATCH", f"/api/v1/monitors/{monitor['id']}", {"enabled": False})
                assert answer.status == 200, answer.text

    def history(self) -> History:
        """Wait until all that is stored has been told; the history of it."""
        self.pause()
        return self.judged(stored(self.tenant), stored(self.other))


def stored(tenant: Tenant) -> list[Key]:
    """What a tenant's history holds, in its order."""
    opened: dict[Key, Key] = {}
    for incident in tenant.get("/api/v1/incidents?limit=100")["incidents"]:
        check = (CHECK, incident["monitor_id"], incident["started_at"])
        opened[check] = (CREATED, incident["monitor_id"], incident["alert_rule_id"])
    checks: dict[int, Key] = {}
    for monitor in tenant.get("/api/v1/monitors")["monitors"]:
        found = tenant.get(f"/api/v1/monitors/{monitor['id']}/checks?limit={MOST_CHECKS}")["checks"]
        assert len(found) < MOST_CHECKS, "more checks than were asked for"
        checks |= {check["id"]: (CHECK, monitor["id"], check["checked_at"]) for check in found}
    keys: list[Key] = []
    for number in sorted(checks):
        keys.append(checks[number])
        if checks[number] in opened:
            keys.append(opened[checks[number]])
    return keys


def key_of(block: Block) -> Key | None:
    return key_of_told(block.type, json.loads(block.data or "{}").get("data"))


def key_of_told(kind: str, data: Any) -> Key | None:
    """By the type and data of what the worker sends."""
    if kind == CHECK:
        return CHECK, data["monitor_id"], data["checked_at"]
    if kind == CREATED:
        return CREATED, data["monitor_id"], data["alert_rule_id"]
    return None
