"""Judges what subscribers saw against what publishers were told. Pure; every fault uses it, and mutants of good
histories must fail it.

An event is known by its number, which is its data. The publisher's outcome is `ok` (acknowledged), `fail` (refused) or
`unknown` (no answer). Checked: no acknowledged event is missing without a gap declared before the next one; ids
strictly increase, unless the log's epoch changed behind a gap; all subscribers saw one order; nothing that was refused
or never published arrived; and no gap was declared where nothing is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Seen:
    """An event or, with number -1, a declared gap (`id` is then its reason)."""

    number: int
    id: str

    @property
    def gap(self) -> bool:
        return self.number < 0


@dataclass(slots=True)
class History:
    """A run: what became of each publish, and what each subscriber saw in order."""

    outcomes: dict[int, str] = field(default_factory=dict)
    seen: dict[str, list[Seen]] = field(default_factory=dict)

    def problems(self, *, needless_gaps: bool = False) -> list[str]:
        """What went wrong, in words; empty if nothing did. `needless_gaps`: a gap may be declared where nothing is
        missing (a restart can't know).
        """
        found = [text for name, log in self.seen.items() for text in self._one(name, log, needless_gaps)]
        return found + list(self._order())

    def _one(self, name: str, log: list[Seen], needless_gaps: bool) -> Iterable[str]:
        acknowledged = {number for number, outcome in self.outcomes.items() if outcome == "ok"}
        missing = acknowledged - {entry.number for entry in log}
        yield from (f"{name}: {number} is a phantom" for number in phantoms(log, self.outcomes))
        yield from (f"{name}: {problem}" for problem in disorder(log))
        gaps = sum(entry.gap for entry in log)
        if missing and not gaps:
            yield f"{name}: {len(missing)} lost in silence, first {min(missing)}"
        if gaps and not missing and not needless_gaps:
            yield f"{name}: {gaps} gaps declared where nothing is missing"
        yield from (f"{name}: {number} lost outside a gap" for number in self._outside(log, missing))

    def _outside(self, log: list[Seen], missing: set[int]) -> list[int]:
        """Missing events whose successor in the publisher's order was seen without a gap right before it."""
        excused: set[int] = set()
        before = -1
        gap = False
        for entry in log:
            if entry.gap:
                gap = True
                continue
            if gap:
                excused.update(range(before + 1, entry.number))
            before, gap = max(before, entry.number), False
        if gap:
            excused.update(range(before + 1, max(self.outcomes, default=0) + 1))
        return sorted(missing - excused)

    def _order(self) -> Iterable[str]:
        # By epoch: a publish whose answer was lost, together with its event, may be made again in the next one.
        ids: dict[tuple[int, str], str] = {}
        for name, log in self.seen.items():
            for entry in log:
                known = ids.setdefault((entry.number, entry.id[:6]), entry.id)
                if not entry.gap and known != entry.id:
                    yield f"{name}: {entry.number} has id {entry.id}, elsewhere {known}"


def phantoms(log: list[Seen], outcomes: Mapping[int, str]) -> list[int]:
    """Events that were refused or never published."""
    return [entry.number for entry in log if not entry.gap and outcomes.get(entry.number) not in ("ok", "unknown")]


def disorder(log: list[Seen]) -> Iterable[str]:
    """Ids that do not increase, numbers that come twice in an epoch. (What a log has lost, and its receipt with it, is
    published again by who got no answer; who had it already has it twice, with a gap of a new epoch between.)"""
    last, numbers, gap = "", set(), False
    for entry in log:
        if entry.gap:
            gap = True
            continue
        new_epoch = entry.id[:6] != last[:6]
        if last and ((new_epoch and not gap) or (not new_epoch and entry.id <= last)):
            yield f"{entry.number} with id {entry.id} came after {last}"
        if (entry.number, entry.id[:6]) in numbers:
            yield f"{entry.number} came twice"
        numbers.add((entry.number, entry.id[:6]))
        last, gap = entry.id, False
