"""Moments as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.moments import written, written_seconds

YEAR_2100_MS = 4_102_444_800_000


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1.001, "1970-01-01T00:00:01.001Z"),
        (1_700_000_000.001, "2023-11-14T22:13:20.001Z"),
        (1_736_859_296.007, "2025-01-14T12:54:56.007Z"),
        (1.9999, "1970-01-01T00:00:01.999Z"),
        (-0.25, "1969-12-31T23:59:59.750Z"),
    ],
)
def test_a_moment_is_written_in_utc_with_milliseconds(moment: float, text: str) -> None:
    assert written(moment) == text
    assert written_seconds(moment) == f"{text[:19]}Z"


@given(st.integers(0, YEAR_2100_MS))
def test_no_millisecond_is_lost_or_added(milliseconds: int) -> None:
    assert written(milliseconds / 1_000)[-5:-1] == f".{milliseconds % 1_000:03}"


@given(st.integers(0, YEAR_2100_MS), st.integers(0, YEAR_2100_MS))
def test_texts_sort_as_their_moments_do(one: int, other: int) -> None:
    one, other = sorted((one, other))
    for form in (written, written_seconds):
        assert form(one / 1_000) <= form(other / 1_000)
