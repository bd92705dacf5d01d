"""Stages of a load test: how many readers there are at each moment. Pure; `shape.py` makes Locust follow them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Stage(NamedTuple):
    """In so many seconds, evenly, to so many readers."""

    seconds: float
    readers: int


# As the load test of the facilities' specification has it.
UP_AND_DOWN = (Stage(30, 100), Stage(60, 100), Stage(30, 0))


def length_seconds(stages: Sequence[Stage]) -> float:
    """Of all of them."""
    return sum(stage.seconds for stage in stages)


def readers_at(stages: Sequence[Stage], second: float) -> int:
    """How many readers there are so long after the start. They begin with none, and after the end stay as they were."""
    before = 0
    for stage in stages:
        if second < stage.seconds:
            return round(before + (stage.readers - before) * max(0.0, second) / stage.seconds)
        second -= stage.seconds
        before = stage.readers
    return before
