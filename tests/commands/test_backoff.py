"""How long clients wait."""

from __future__ import annotations

import pytest

from server.commands.backoff import MAX_RETRY_AFTER_SECONDS, Backoff, retry_after_seconds


def test_the_wait_is_spread_over_a_bound_that_doubles_up_to_the_cap() -> None:
    backoff = Backoff(base_seconds=1, cap_seconds=8)
    for failures, bound in enumerate([1, 2, 4, 8, 8, 8]):
        drawn = [backoff.delay(failures) for _ in range(500)]
        assert 0 <= min(drawn) < bound * 0.1
        assert bound * 0.9 < max(drawn) <= bound


def test_what_the_server_asked_for_is_a_floor_under_the_random_part() -> None:
    drawn = [Backoff(base_seconds=1, cap_seconds=2).delay(9, floor_seconds=5) for _ in range(500)]
    assert min(drawn) >= 5
    assert max(drawn) > 6.5


def test_any_number_of_failures_is_fine() -> None:
    assert Backoff(cap_seconds=2).delay(10**6) <= 2


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, 0),
        ("", 0),
        ("7", 7),
        ("0", 0),
        ("-1", 0),
        ("1.5", 0),
        ("²", 0),
        ("Sat, 21 Nov 2026 05:43:15 GMT", 0),
        ("9" * 5000, MAX_RETRY_AFTER_SECONDS),
    ],
)
def test_retry_after_is_read_if_it_is_a_number_and_bounded(value: str | None, seconds: float) -> None:
    assert retry_after_seconds(value) == seconds
