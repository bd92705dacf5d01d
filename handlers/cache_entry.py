"""Kept answers, and what drops them, as plain values.

Owns what a kept answer consists of and when a drop meets it. Must never know where answers are kept or who asks. Pure.

An answer carries tags (what it depends on), its route, and the area that it is about. A drop that says `change` reports
that what its tags name has changed: routes that let their answers live out their time keep them then, and the moment is
written down. Any other drop is an order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from server.exchange import Response
from server.region import MAX_RADIUS_KM, OutOfRange, Region, check_location

# Latitude and longitude of the centre in degrees, and the radius in kilometres: 0 is a place.
Area = tuple[float, float, float]

# What an entry takes beside its bytes, and for each tag: the tables by which it is found (measured with tracemalloc).
ENTRY_BYTES = 700
TAG_BYTES = 100
_SMALLEST_RADIUS_KM = 0.001


@dataclass(slots=True, eq=False)
class Kept:
    """An answer of an endpoint. `made`, and `changed` (when the first of its tags was reported as changed), are of the
    clock of the process; it is fresh for `fresh_seconds` and gone after `kept_seconds`."""

    key: str
    route: str
    body: bytes
    content_type: str
    headers: tuple[tuple[str, str], ...]
    tags: tuple[str, ...]
    area: Area | None
    drop_on_change: bool
    fresh_seconds: float
    kept_seconds: float
    made: float
    changed: float | None = None

    @property
    def cost(self) -> int:
        """The memory that it takes, roughly, in bytes."""
        headers = sum(len(name) + len(value) for name, value in self.headers)
        return ENTRY_BYTES + len(self.body) + headers + sum(TAG_BYTES + len(tag) for tag in self.tags)

    def response(self) -> Response:
        """As it goes out, once more."""
        return Response(200, self.body, self.content_type, list(self.headers))


@dataclass(frozen=True, slots=True)
class Drop:
    """What is to go: the answers that meet every condition that is given. None given: all. `tags`: any of them. `where`
    sees everything but the body. `reason` is for logs and metrics, one of few."""

    reason: str
    tags: frozenset[str] | None = None
    route: str | None = None
    area: Area | None = None
    where: Callable[[Kept], bool] | None = None
    change: bool = False

    def meets(self, kept: Kept) -> bool:
        """True if the answer is one of those meant."""
        return (
            (self.route is None or kept.route == self.route)
            and (self.tags is None or not self.tags.isdisjoint(kept.tags))
            and (self.area is None or (kept.area is not None and overlap(self.area, kept.area)))
            and (self.where is None or self.where(kept))
        )

    def ends(self, kept: Kept) -> bool:
        """True if the answer is to go, and is not only stale from now on."""
        return (kept.drop_on_change or not self.change) and self.meets(kept)

    @property
    def simple(self) -> bool:
        """True if tags or a route alone are enough to find what is meant."""
        return self.area is None and self.where is None and (self.tags is None or self.route is None)

    def facts(self) -> dict[str, Any]:
        """As JSON takes it, for other nodes (`of_facts`). One with `where` can't be told."""
        assert self.where is None
        tags = None if self.tags is None else sorted(self.tags)
        return {"reason": self.reason, "tags": tags, "route": self.route, "area": self.area, "change": self.change}

    @classmethod
    def of_facts(cls, facts: Mapping[str, Any]) -> Drop:
        """What another node has told."""
        tags, area = facts["tags"], facts["area"]
        return cls(
            facts["reason"],
            None if tags is None else frozenset(tags),
            facts["route"],
            None if area is None else checked_area((area[0], area[1], area[2])),
            change=facts["change"],
        )


def checked_area(area: Area) -> Area:
    """The area, if it is one. Raises server.region.OutOfRange."""
    check_location(area[:2])
    if not 0.0 <= area[2] <= MAX_RADIUS_KM:
        raise OutOfRange("radius_km", f"must be from 0 to {MAX_RADIUS_KM:g}")
    return area


def overlap(one: Area, other: Area) -> bool:
    """True if the two have a place in common, by great-circle distance."""
    reach = min(max(one[2] + other[2], _SMALLEST_RADIUS_KM), MAX_RADIUS_KM)
    return Region(one[0], one[1], reach).contains(other[:2])
