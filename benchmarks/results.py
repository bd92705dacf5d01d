"""results/latest.json: the outcomes by name, with the machine they were measured on. A run of some scenarios replaces
those alone.
"""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

from benchmarks.outcome import Outcome

FOLDER = Path(__file__).parent / "results"


def load(path: Path) -> dict[str, Any]:
    """What was measured before; nothing is an empty result."""
    if not path.exists():
        return {"machine": {}, "outcomes": {}}
    return dict(json.loads(path.read_text()))


def merge(before: dict[str, Any], outcomes: list[Outcome], machine: dict[str, str], order: list[str]) -> dict[str, Any]:
    """Outcomes of another machine or of other versions don't stay beside new ones."""
    kept = dict(before["outcomes"]) if before["machine"] == machine else {}
    measured_at = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    kept |= {outcome.name: outcome.as_json() | {"measured_at": measured_at} for outcome in outcomes}
    return {"machine": machine, "outcomes": {name: kept[name] for name in order if name in kept}}


def save(path: Path, result: dict[str, Any]) -> None:
    """Readable in a diff: a run of the load generator is one line, everything else one value a line."""
    runs: list[str] = []

    def one_line(run: dict[str, Any]) -> str:
        runs.append(json.dumps(run, ensure_ascii=False))
        return f"run {len(runs) - 1}"

    short = {
        name: outcome | {"runs": [one_line(run) for run in outcome["runs"]]}
        for name, outcome in result["outcomes"].items()
    }
    text = json.dumps(result | {"outcomes": short}, indent=1, ensure_ascii=False)
    path.parent.mkdir(exist_ok=True)
    path.write_text(re.sub(r'"run (\d+)"', lambda found: runs[int(found.group(1))], text) + "\n")
