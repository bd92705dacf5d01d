"""The corpus: streams and what a client must make of them, in a form that clients in other languages can read too.

`corpus.json` is a list of cases. `stream` holds one byte per character (U+0000 to U+00FF); `events` are [type, data,
last event id]; `last_event_id` and `retry_ms` are the connection's state at its end; `ours` tells whether this server
may send such a stream; `rule` names a row of the checklist in tests/README.md.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.wire.parser import Dispatched


@dataclass(frozen=True, slots=True)
class Case:
    rule: str
    name: str
    stream: bytes
    events: list[Dispatched]
    last_event_id: str
    retry_ms: int | None
    ours: bool


def _case(row: dict[str, Any]) -> Case:
    events = [Dispatched(*event) for event in row["events"]]
    return Case(
        row["rule"],
        row["name"],
        row["stream"].encode("latin-1"),
        events,
        row["last_event_id"],
        row["retry_ms"],
        row["ours"],
    )


CASES = [_case(row) for row in json.loads(Path(__file__).with_name("corpus.json").read_text())]


def name_of(case: Case) -> str:
    return f"{case.rule}-{case.name.replace(' ', '-')}"
