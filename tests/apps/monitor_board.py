"""A client of `monitors` that knows what is open and what is watched by the events alone, in the order in which they
come, and says what cannot be: an incident that is over before it begins, a check of what nobody watches. Knows no test.
"""

from __future__ import annotations

import json
from typing import Any

from tests.harness.stream import Stream


class Board:
    """See the module's head. `kinds` are the types that came; `wrong` is what cannot be."""

    def __init__(self) -> None:
        self.kinds: list[str] = []
        self.open: set[tuple[str, str]] = set()
        self.unwatched: set[str] = set()
        self.wrong: list[str] = []

    def follow(self, stream: Stream, kind: str) -> None:
        """Apply a stream's events up to the next of this type."""
        while (block := stream.next_event()).type != kind:
            if block.type != "connected":
                self.apply(block.data or "")
        self.apply(block.data or "")

    def apply(self, body: str) -> None:
        """One event, by what its `data:` holds."""
        event = json.loads(body)
        kind, facts = event["type"], event["data"]
        self.kinds.append(kind)
        if kind.startswith("incident"):
            self._turn(kind, (facts["monitor_id"], facts["alert_rule_id"]))
        elif kind == "monitor_check" and facts["monitor_id"] in self.unwatched:
            self.wrong.append("a check of a monitor that is paused or gone")
        elif kind.startswith("monitor"):
            self._see(kind, facts)

    def _turn(self, kind: str, incident: tuple[str, str]) -> None:
        begins = kind == "incident_created"
        if begins == (incident in self.open):
            self.wrong.append(f"{kind} where it is {'open' if begins else 'not open'}")
        (self.open.add if begins else self.open.discard)(incident)

    def _see(self, kind: str, facts: dict[str, Any]) -> None:
        if kind == "monitor_deleted" or not facts.get("enabled", True):
            self.unwatched.add(facts["monitor_id"])
        elif "enabled" in facts:
            self.unwatched.discard(facts["monitor_id"])
