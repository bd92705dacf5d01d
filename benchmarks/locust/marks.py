"""Sequence marks: what publishers write into events so that readers can tell what was lost, repeated or out of order,
and how late it was.

A series is one publisher's events on one topic, numbered from 0 without holes: a number is used up only once its event
was acknowledged. A reader joins a series at the first number it sees. The last mark of a series says so, so that a loss
at the end shows too. Pure.

Latency is the reader's clock minus the publisher's: on several machines both must be synchronised, by NTP or better.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Mark:
    """One event's place in its series; `sent` is time.time() at the publisher."""

    series: str
    number: int
    sent: float
    last: bool = False

    def write(self, size_bytes: int) -> str:
        """The event's data, padded to about `size_bytes`."""
        text = json.dumps(
            {"series": self.series, "number": self.number, "sent": self.sent, "last": self.last, "pad": ""}
        )
        return text[:-2] + "x" * max(0, size_bytes - len(text)) + text[-2:]

    @staticmethod
    def read(data: str) -> Mark | None:
        """The mark in an event's data, or None if it is somebody else's event."""
        try:
            fields = json.loads(data)
            return Mark(fields["series"], fields["number"], fields["sent"], fields["last"])
        except (ValueError, TypeError, KeyError):
            return None


@dataclass(slots=True)
class Ledger:
    """What one reader has seen. `excused` says that a gap was declared: the next hole of each series is not silent."""

    due: dict[str, int] = field(default_factory=dict)
    finished: set[str] = field(default_factory=set)
    excused: set[str] = field(default_factory=set)

    def excuse(self) -> None:
        """A gap was declared."""
        self.excused = set(self.due)

    def take(self, mark: Mark) -> tuple[int, int]:
        """Enter a mark: how many events were lost before it, and 1 if it came before or out of order, else 0."""
        due = self.due.get(mark.series, mark.number)
        if mark.number < due:
            return 0, 1
        self.due[mark.series] = mark.number + 1
        if mark.last:
            self.finished.add(mark.series)
        excused = mark.series in self.excused
        self.excused.discard(mark.series)
        return (0 if excused else mark.number - due), 0

    def unfinished(self) -> int:
        """Series whose last mark has not come."""
        return len(self.due) - len(self.finished)
