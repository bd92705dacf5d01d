"""Drops: which answers they mean."""

from __future__ import annotations

from typing import Any

import pytest

from handlers.cache_entry import Area, Drop, overlap
from server.region import OutOfRange
from tests.handlers.cache_bench import kept

LAGOS: Area = (6.5244, 3.3792, 10.0)


@pytest.mark.parametrize(
    ("one", "other", "common"),
    [
        (LAGOS, LAGOS, True),
        (LAGOS, (6.5244, 3.3792, 0.0), True),
        (LAGOS, (6.6, 3.4, 0.0), True),
        (LAGOS, (7.3775, 3.9470, 50.0), False),  # Ibadan, 113 km away
        (LAGOS, (7.3775, 3.9470, 110.0), True),
        ((0.0, 179.9, 10.0), (0.0, -179.9, 15.0), True),  # 22 km, across the date line
        ((0.0, 179.9, 10.0), (0.0, -179.9, 10.0), False),
        ((89.9, 0.0, 10.0), (89.9, 180.0, 15.0), True),  # across the pole
        ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), True),
        ((90.0, 0.0, 20000.0), (-90.0, 0.0, 20000.0), True),
    ],
)
def test_areas_have_a_place_in_common_by_great_circle(one: Area, other: Area, common: bool) -> None:
    """F7: searches whose area meets a region."""
    assert overlap(one, other) == common
    assert overlap(other, one) == common


def test_all_conditions_have_to_be_met() -> None:
    one = kept("k", "a", "b", area=LAGOS, route="/r")
    assert Drop("x").meets(one)
    assert Drop("x", frozenset(["b", "z"]), "/r", LAGOS, lambda _: True).meets(one)
    for other in (
        Drop("x", frozenset(["z"]), "/r"),
        Drop("x", frozenset()),
        Drop("x", route="/other"),
        Drop("x", area=(0.0, 0.0, 1.0)),
        Drop("x", where=lambda kept: "c" in kept.tags),
    ):
        assert not other.meets(one)


def test_an_answer_without_an_area_is_in_no_region() -> None:
    assert not Drop("x", area=(0.0, 0.0, 20000.0)).meets(kept("k"))


def test_a_change_ends_only_what_does_not_live_out_its_time() -> None:
    """F7: searches live out their TTL."""
    change, order = Drop("x", frozenset("a"), change=True), Drop("x", frozenset("a"))
    detail, search = kept("k", "a"), kept("k", "a", drop_on_change=False)
    assert (change.ends(detail), change.ends(search), order.ends(search)) == (True, False, True)
    assert change.meets(search)


@pytest.mark.parametrize(
    "drop",
    [
        Drop("change", frozenset(["b", "a"]), change=True),
        Drop("route", route="/r"),
        Drop("region", route="/r", area=LAGOS),
        Drop("all"),
    ],
)
def test_what_is_told_to_other_nodes_is_understood(drop: Drop) -> None:
    assert Drop.of_facts(drop.facts()) == drop


@pytest.mark.parametrize("area", [(91.0, 0.0, 1.0), (0.0, 181.0, 1.0), (0.0, 0.0, -1.0), (0.0, 0.0, float("nan"))])
def test_an_area_that_is_none_is_refused(area: Any) -> None:
    with pytest.raises(OutOfRange):
        Drop.of_facts(Drop("region", area=area).facts())
