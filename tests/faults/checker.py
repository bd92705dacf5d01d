"""Judges what subscribers saw against what publishers were told. Pure; every fault uses it, and mutants of good
histories (test_checker.py) and of a server (test_mutants.py) must fail it.

An event is known by its number, which is its data. The publisher's outcome is `ok` (acknowledged), `fail` (refused) or
`unknown` (no answer). Checked, for each subscriber and over all its connections:

- I1 no acknowledged event that it may read is missing without a gap declared before the next one;
- I2, I5 ids strictly increase, unless the log's epoch changed behind a gap, and no number comes twice in an epoch;
  what may come again (`passed_once`, `republished`) is counted, and bounded by the turns of the log;
- I3 all subscribers saw one order, and in it the events of one publisher stand in the order of its publishing;
- I4 nothing arrived that was refused, never published, or is of a topic that is not the subscriber's;
- I6 delivery went on in time behind each fault, and readiness told of the fault in time;
- I7 nothing is left behind when all have gone (`residue`);
- I8 each hole was declared once, and no gap where nothing is missing.

Cost: linear in the entries; no clock, no file, no socket.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

EPOCH = 6  # the characters of an id that name the log
TASKS = 5  # more than before: some come and go by themselves, as with each connection that asks how many there are
MEMORY_SHARE = 0.05  # more than before by less than this is no residue
MEMORY_SLACK_BYTES = 1 << 20  # of an allocator that keeps what it got


@dataclass(frozen=True, slots=True)
class Seen:
    """An event or, with number -1, a declared gap (`id` is then its data). `at` and `connection` tell when it came, and
    over which of the subscriber's connections; they are no part of what was seen.
    """

    number: int
    id: str
    at: float = field(default=0.0, compare=False)
    connection: int = field(default=0, compare=False)

    @property
    def gap(self) -> bool:
        return self.number < 0


@dataclass(slots=True)
class Outage:
    """A fault that readiness has to tell of: from when to when, and within which times of either end."""

    name: str
    began: float
    seconds: float
    back_seconds: float
    healed: float | None = None


@dataclass(slots=True)
class History:
    """A run: what became of each publish, and what each subscriber saw in order.

    `seen` are those that stay and keep up; `others` are slow, hang up and return, or read another topic. An event
    without a topic is everybody's, and so is a subscriber without one given everything; a number without an author is
    of the only publisher.
    """

    outcomes: dict[int, str] = field(default_factory=dict)
    seen: dict[str, list[Seen]] = field(default_factory=dict)
    others: dict[str, list[Seen]] = field(default_factory=dict)
    authors: dict[int, int] = field(default_factory=dict)
    topics: dict[int, str] = field(default_factory=dict)
    topic_of: dict[str, str] = field(default_factory=dict)
    healed: list[tuple[float, float]] = field(default_factory=list)
    readiness: dict[str, list[tuple[float, bool]]] = field(default_factory=dict)
    outages: list[Outage] = field(default_factory=list)
    left_behind: list[str] = field(default_factory=list)

    def problems(self, *, needless_gaps: bool = False) -> list[str]:
        """What went wrong, in words; empty if nothing did. `needless_gaps`: a gap may be declared where nothing is
        missing (a restart can't know).
        """
        logs = self.seen | self.others
        found = [f"{name}: {text}" for name, log in logs.items() for text in self._one(name, log, needless_gaps)]
        found += order(logs)
        found += self._needless_repeats()
        found += [text for outage in self.outages for text in unnoticed(outage, self.readiness.get(outage.name, []))]
        return found + self.left_behind

    def repeats(self) -> dict[str, int]:
        """How many events each subscriber got again that may come again, under their ids or under new ones."""
        counts = {}
        for name, raw in (self.seen | self.others).items():
            log = passed_once(raw)
            counts[name] = len(raw) - len(log) + sum(republished(log, self.authors).values())
        return counts

    def _needless_repeats(self) -> Iterator[str]:
        """A log that never turned knows each of its cursors, and gives nothing again."""
        logs = self.seen | self.others
        if len({entry.id[:EPOCH] for log in logs.values() for entry in log if not entry.gap}) == 1:
            yield from (
                f"{name}: {count} came again though no log turned" for name, count in self.repeats().items() if count
            )

    def _one(self, name: str, raw: list[Seen], needless_gaps: bool) -> Iterator[str]:
        log = passed_once(raw)
        mine = {number for number in self.outcomes if self._may_read(name, number)}
        acknowledged = {number for number in mine if self.outcomes[number] == "ok"}
        missing = acknowledged - {entry.number for entry in log}
        yield from (f"{number} is a phantom" for number in phantoms(log, self.outcomes))
        yield from (
            f"{entry.number} is foreign" for entry in log if not entry.gap and not self._may_read(name, entry.number)
        )
        yield from disorder(log)
        yield from self._unlike_published(log)
        turns = len({entry.id[:EPOCH] for entry in log if not entry.gap}) - 1
        yield from (
            f"{count} of one publisher came again in another epoch, and the log turned {turns} times"
            for count in republished(log, self.authors).values()
            if count > turns
        )
        excused: set[int] = set()
        for first, gaps, end in holes(log, max(self.outcomes, default=0) + 1):
            hole = missing & set(range(first, end))
            excused |= hole
            told = told_once(gaps)
            again = sum(gap.connection == before.connection for before, gap in pairwise(gaps) if repeats(before, gap))
            if again:
                yield f"{again} gaps declare again what was declared right before {end}"
            elif len(told) > len(hole) and not needless_gaps:
                yield f"{len(told)} gaps declared before {end} where {len(hole)} are missing"
        yield from (f"{number} lost outside a gap" for number in sorted(missing - excused))
        yield from late(log, self.healed)

    def _may_read(self, name: str, number: int) -> bool:
        wanted, topic = self.topic_of.get(name), self.topics.get(number)
        return wanted is None or topic is None or wanted == topic

    def _unlike_published(self, log: list[Seen]) -> Iterator[str]:
        """Events that come after a later one of their publisher, which had waited for their acknowledgement before. One
        without an answer may come at any time.
        """
        newest: dict[tuple[int, str], int] = {}
        for entry in log:
            if entry.gap or self.outcomes.get(entry.number) != "ok":
                continue
            place = self.authors.get(entry.number, 0), entry.id[:EPOCH]
            if entry.number < newest.get(place, -1):
                yield f"{entry.number} came behind {newest[place]}, which was published after it"
            newest[place] = max(entry.number, newest.get(place, -1))


def holes(log: list[Seen], end: int) -> Iterator[tuple[int, list[Seen], int]]:
    """Each run of gaps, with the numbers between which something may be missing (in the publisher's order)."""
    before, gaps = -1, list[Seen]()
    for entry in log:
        if entry.gap:
            gaps.append(entry)
            continue
        if gaps:
            yield before + 1, gaps, entry.number
        before, gaps = max(before, entry.number), []
    if gaps:
        yield before + 1, gaps, end


def told_once(gaps: list[Seen]) -> list[Seen]:
    """Without those that only say again what a connection that ended had said: a gap moves no cursor."""
    return gaps[:1] + [gap for before, gap in pairwise(gaps) if not repeats(before, gap)]


def repeats(before: Seen, gap: Seen) -> bool:
    """True unless the second gap begins where the first one ends, or later, or in another epoch."""
    try:
        first, second = json.loads(before.id), json.loads(gap.id)
    except ValueError:
        return True
    ended, begins = first["to"], second["from"]
    if ended is None or begins is None:
        return True
    return begins[:EPOCH] == str(first["from"])[:EPOCH] and begins < ended


def passed_once(log: list[Seen]) -> list[Seen]:
    """As a client sees it that drops what it has passed. It may get that again only behind a gap that says that its
    cursor is of another epoch, in order, and once for each such gap: a node that has not noticed yet that the log
    turned knows no cursor of the new epoch, and replays the old one.
    """
    kept: list[Seen] = []
    newest: dict[str, Seen] = {}
    gap, again = None, ""  # the last one, unless something new has come since; and up to where it came again
    for entry in log:
        known = newest.get(entry.id[:EPOCH])
        if entry.gap:
            gap, again = entry, ""
        elif gap and known and again < entry.id <= known.id and unknown_there(gap, known, entry):
            again = entry.id
            continue
        else:
            newest[entry.id[:EPOCH]], gap = entry, None
        kept.append(entry)
    return kept


def unknown_there(gap: Seen, known: Seen, entry: Seen) -> bool:
    """True if the gap told a client, on a connection after that of the known entry, that its cursor is of another epoch
    than theirs. Who hangs up in the middle of what comes again gets the rest on the next connection.
    """
    if not known.connection < gap.connection <= entry.connection:
        return False
    facts = json.loads(gap.id)
    return bool(facts["reason"] == "epoch" and facts["from"] and facts["from"][:EPOCH] != entry.id[:EPOCH])


def republished(log: list[Seen], authors: Mapping[int, int]) -> dict[int, int]:
    """For each publisher, how many of its events came in one epoch more. It is what it had no answer to when the log
    turned, and it waits for each answer: one for each turn."""
    places = {(entry.number, entry.id[:EPOCH]) for entry in log if not entry.gap}
    counts = Counter(number for number, _ in places)
    again: Counter[int] = Counter()
    for number, epochs in counts.items():
        again[authors.get(number, 0)] += epochs - 1
    return again


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
        new_epoch = entry.id[:EPOCH] != last[:EPOCH]
        if last and ((new_epoch and not gap) or (not new_epoch and entry.id <= last)):
            yield f"{entry.number} with id {entry.id} came after {last}"
        if (entry.number, entry.id[:EPOCH]) in numbers:
            yield f"{entry.number} came twice"
        numbers.add((entry.number, entry.id[:EPOCH]))
        last, gap = entry.id, False


def order(logs: Mapping[str, list[Seen]]) -> list[str]:
    """Events that have not the same id for everybody. With ids that increase for each that is one order for all."""
    # By epoch: a publish whose answer was lost, together with its event, may be made again in the next one.
    ids: dict[tuple[int, str], str] = {}
    return [
        f"{name}: {entry.number} has id {entry.id}, elsewhere {ids[entry.number, entry.id[:EPOCH]]}"
        for name, log in logs.items()
        for entry in log
        if not entry.gap and ids.setdefault((entry.number, entry.id[:EPOCH]), entry.id) != entry.id
    ]


def late(log: list[Seen], healed: Iterable[tuple[float, float]]) -> Iterator[str]:
    """Faults behind whose end no event came in the time that was given for it."""
    for moment, seconds in healed:
        if not any(not entry.gap and moment <= entry.at <= moment + seconds for entry in log):
            yield f"no event within {seconds} s of the end of a fault"


def unnoticed(outage: Outage, readiness: list[tuple[float, bool]]) -> Iterator[str]:
    """What readiness did not say in time of a fault, or of its end."""
    begin, end = (outage.began, outage.seconds, False, "begin"), (outage.healed, outage.back_seconds, True, "end")
    for moment, seconds, expected, what in (begin, end):
        if moment is None:
            yield f"{outage.name}: an outage without an end"
        elif not any(ready == expected and moment <= at <= moment + seconds for at, ready in readiness):
            yield f"{outage.name}: readiness did not tell of the {what} of an outage in {seconds} s"


def residue(before: Mapping[str, int], after: Mapping[str, int]) -> list[str]:
    """What a node holds more of than it did. Memory (a key that ends in `bytes`) may be what the allocator keeps."""
    found = []
    for name, held in after.items():
        allowed = before.get(name, 0)
        if name == "tasks":
            allowed += TASKS
        if name.endswith("bytes"):
            allowed += max(int(allowed * MEMORY_SHARE), MEMORY_SLACK_BYTES)
        if held > allowed:
            found.append(f"{name}: {held} left behind, {before.get(name, 0)} before")
    return found
