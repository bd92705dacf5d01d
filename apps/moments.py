"""Moments as text: the one form in which applications say when something was.

Owns the form: UTC, milliseconds (or whole seconds, where a format has them so) and `Z`. A moment is unix seconds. Must
never know what happened then.

Invariants: what is said is never later than the moment, so that nothing is said to be of a time to come. A moment of
whole milliseconds, of this century, comes out as it went in, although the nearest float may be a little less. Texts of
one form sort as their moments do.
Cost: a microsecond or two.
"""

from __future__ import annotations

from datetime import UTC, datetime


def written(moment: float) -> str:
    """Such as 2026-01-31T12:00:00.250Z."""
    return _utc(moment, "milliseconds")


def written_seconds(moment: float) -> str:
    """Such as 2026-01-31T12:00:00Z."""
    return _utc(moment, "seconds")


def _utc(moment: float, precision: str) -> str:
    # First rounded, to microseconds, and then cut: 1.001 is .001 and not .000.
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec=precision).replace("+00:00", "Z")
