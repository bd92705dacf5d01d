"""Monitors of two tenants and everybody who reads of them, for the checker of faults.

What is acknowledged is what is stored: the checks in the monitors' histories, behind the check that opened it each
incident, and behind the check that ended it its resolution. Those that a change has ended stand by themselves: nothing
says between which checks they were, but that it was behind their beginning. The account is taken when the monitors are
paused: nothing is stored from then on, so that what is stored is told in the end, and what is told is stored. A rule
that is made last of all marks that end. Must know no fault.

Invariant: an incident that opened is the only one of its monitor and rule (its events tell no more), and a monitor has
one rule at a time.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from tests.apps.audience import Audience, Key
from tests.apps.monitoring import Site, Tenant, register
from tests.faults.checker import History
from tests.harness.process import Node
from tests.harness.stream import Block

MOST_CHECKS = 500  # of a monitor, that are asked for
CHECK, CREATED, RESOLVED, RULED = "monitor_check", "incident_created", "incident_resolved", "alert_rule_created"
END = "The end"


class Account(NamedTuple):
    """What is acknowledged: `told` in this order, and `apart` what stands somewhere behind its beginning."""

    told: list[Key]
    apart: list[Key]


class Watched(Audience):
    """So many monitors of `tenant`, and one of `other`, all of one site; read of at these nodes."""

    def __init__(self, node: Node, site: Site, seed: int, monitors: int = 3, beside: Sequence[Node] = ()) -> None:
        self.tenant, self.other = register(node), register(node)
        self.monitors = [self.tenant.monitor(site.url(f"/{number}"))["id"] for number in range(monitors)]
        self.other.monitor(site.url("/other"))
        ports = [node.port, *(one.port for one in beside)]
        super().__init__(ports, key_of, self.tenant.path, self.other.path, seed=seed)

    def pause(self) -> None:
        """From now on nothing is stored."""
        for tenant in (self.tenant, self.other):
            for monitor in tenant.get("/api/v1/monitors")["monitors"]:
                answer = tenant.ask("PATCH", f"/api/v1/monitors/{monitor['id']}", {"enabled": False})
                assert answer.status == 200, answer.text

    def history(self) -> History:
        """Wait until all that is stored has been told; the history of it."""
        self.pause()
        return self.judged_by(stored(self.tenant), stored(self.other))

    def judged_by(self, mine: Account, others: Account) -> History:
        """The same, where all is paused and this is what is acknowledged."""
        ends: list[Key] = [(END, tenant.rule(name=END, enabled=False)["id"]) for tenant in (self.tenant, self.other)]
        told = [*mine.told, *mine.apart, ends[0]]
        history = self.judged(told, [*others.told, *others.apart, ends[1]])
        for accounts, before in ((mine, 0), (others, len(told))):
            for number in range(len(accounts.apart)):
                place = before + len(accounts.told) + number
                history.authors[place] = -place  # its own, so that no order is asked for but this one:
                history.left_behind += self._resolved_early(accounts.apart[number])
        return history

    def _resolved_early(self, resolved: Key) -> list[str]:
        assert isinstance(resolved, tuple)
        begun = self.number_of((CREATED, *resolved[1:]))
        ended = self.number_of(resolved)
        seen = {name: [entry.number for entry in log] for name, log in self._logs().items()}
        return [
            f"{name}: {resolved} came before it had begun"
            for name, log in seen.items()
            if ended in log and (begun not in log or log.index(begun) > log.index(ended))
        ]


def stored(tenant: Tenant) -> Account:
    """What a tenant's history holds."""
    turns: dict[Key, list[Key]] = {}
    apart: list[Key] = []
    for incident in reversed(tenant.get("/api/v1/incidents?limit=100")["incidents"]):
        monitor, about = incident["monitor_id"], (incident["monitor_id"], incident["alert_rule_id"])
        turns.setdefault((CHECK, monitor, incident["started_at"]), []).append((CREATED, *about))
        if incident["status"] == "resolved":
            turns.setdefault((CHECK, monitor, incident["resolved_at"]), []).append((RESOLVED, *about))
    checks: dict[int, Key] = {}
    for monitor in tenant.get("/api/v1/monitors")["monitors"]:
        found = tenant.get(f"/api/v1/monitors/{monitor['id']}/checks?limit={MOST_CHECKS}")["checks"]
        assert len(found) < MOST_CHECKS, "more checks than were asked for"
        checks |= {check["id"]: (CHECK, monitor["id"], check["checked_at"]) for check in found}
    told: list[Key] = []
    for number in sorted(checks):
        told += [checks[number], *turns.pop(checks[number], [])]
    for keys in turns.values():
        assert all(isinstance(key, tuple) and key[0] == RESOLVED for key in keys), "an incident without its check"
        apart += keys
    return Account(told, apart)


def key_of(block: Block) -> Key | None:
    return key_of_told(block.type, json.loads(block.data or "{}").get("data"))


def key_of_told(kind: str, data: Any) -> Key | None:
    """By the type and data of an event."""
    if kind == CHECK:
        return CHECK, data["monitor_id"], data["checked_at"]
    if kind in (CREATED, RESOLVED):
        return kind, data["monitor_id"], data["alert_rule_id"]
    if kind == RULED and data["name"] == END:
        return END, data["alert_rule_id"]
    return None
