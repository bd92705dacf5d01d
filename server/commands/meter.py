"""The meter: what a tail has received, as numbers and as one line of text.

Owns the counts and their rates. Pure: the time is passed in. Must never know of terminals or connections. One thread
counts while another may read: each count is a plain number, and a line that is one event late does no harm.
"""

from __future__ import annotations

from collections import deque

from server.ids import parse_id

# Rates are over this long: shorter ones flicker, longer ones lag behind.
WINDOW_SECONDS = 2.0


class Meter:
    """Counts of one tail. `state` is a word on the connection."""

    def __init__(self, now: float) -> None:
        self.events = 0
        self.bytes = 0
        self.gaps = 0
        self.reconnects = 0
        self.state = "connecting"
        self._lag_seconds: float | None = None
        self._shown_lag_seconds: float | None = None
        self._samples: deque[tuple[float, int]] = deque([(now, 0)])

    def event(self, event_id: str, wall_time: float) -> None:
        """Count an event; an id of the server's own form tells when it was published."""
        self.events += 1
        parsed = parse_id(event_id)
        if parsed is not None:
            self._lag_seconds = max(wall_time - parsed[1] / 1e6, self._lag_seconds or 0.0)

    def line(self, now: float) -> str:
        """All counts, the rate until `now`, and the largest lag since the line before (or the last one known)."""
        lag, self._lag_seconds = self._lag_seconds, None
        self._shown_lag_seconds = self._shown_lag_seconds if lag is None else lag
        parts = (
            counted(self.events, "event"),
            f"{self._rate(now):,.0f}/s",
            size(self.bytes),
            f"lag {duration(self._shown_lag_seconds)}",
            counted(self.gaps, "gap"),
            counted(self.reconnects, "reconnect"),
            self.state,
        )
        return " · ".join(parts)

    def _rate(self, now: float) -> float:
        samples = self._samples
        samples.append((now, self.events))
        while len(samples) > 2 and samples[1][0] <= now - WINDOW_SECONDS:
            samples.popleft()
        seconds = now - samples[0][0]
        return (self.events - samples[0][1]) / seconds if seconds > 0 else 0.0


def counted(count: int, noun: str) -> str:
    """`1 gap`, `2 gaps`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def size(count: int) -> str:
    """Bytes with a fitting unit."""
    for step, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= step:
            return f"{count / step:.1f} {name}"
    return f"{count} B"


def duration(seconds: float | None) -> str:
    """A lag with a fitting unit; a dash if nothing came."""
    if seconds is None:
        return "–"
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"
