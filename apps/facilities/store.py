"""Facilities in the database: rows, the search index beside them, and the events that go with a change.

Owns the statements. Must never decide what a change means (model.py does) or who may make it.

Invariants: a row, its terms in the search index and the events of a change are one transaction. Two changes of one
facility happen one after the other.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

import ujson
from sqlalchemy import Select, and_, case, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.elements import ColumnElement

from apps.facilities.geography import box_of, distance_km
from apps.facilities.model import MONITORED, Facility, events_of, terms_of
from apps.facilities.tables import MAX_NAME_CHARACTERS, MAX_TERM_CHARACTERS, facilities, terms
from apps.facilities.words import folded
from apps.moments import written_seconds
from bridges.database import Database
from bridges.outbox import Outbox
from server.event import Event
from server.region import Region

_LAST = "\U0010ffff"  # after every text that begins alike
MAX_WORDS = 8


class Found(NamedTuple):
    """A facility, and how far it is from where one asked."""

    facility: Facility
    distance_km: float | None


class Wanted(NamedTuple):
    """What is searched for: all of it. `words` are beginnings of words, `exact` whole terms, `fields` values."""

    region: Region | None = None
    words: Sequence[str] = ()
    exact: Sequence[str] = ()
    fields: Mapping[str, object] = {}
    max_wait: int | None = None


class Changed(NamedTuple):
    """A facility after a change, and the types of the events that tell of it."""

    facility: Facility
    kinds: Sequence[str]


class FacilityStore:
    """`channel` is where the events go."""

    def __init__(self, database: Database, outbox: Outbox, channel: str) -> None:
        self._database = database
        self._outbox = outbox
        self._channel = channel

    async def fill(self, given: Sequence[Facility]) -> int:
        """Put these into a database that has none; how many. Of several nodes at once one does it. Raises
        DatabaseUnavailable, as all of these."""
        if await self.ids():
            return 0
        try:
            async with self._database.writing() as connection:
                await connection.execute(insert(facilities), [_columns(one) for one in given])
                await connection.execute(insert(terms), [row for one in given for row in _terms(one)])
        except IntegrityError:
            return 0  # another node was faster
        return len(given)

    async def ids(self) -> frozenset[str]:
        """All there are."""
        async with self._database.reading() as connection:
            return frozenset((await connection.execute(select(facilities.c.id))).scalars())

    async def get(self, facility_id: str) -> Facility | None:
        """One of them."""
        async with self._database.reading() as connection:
            row = (await connection.execute(_row(facility_id))).one_or_none()
        return None if row is None else _facility(row)

    async def change(self, facility_id: str, go_on: Callable[[Facility], Facility]) -> Changed | None:
        """Let `go_on` say what the facility is from now on; None if there is no such facility. What it raises comes
        out, and nothing has happened."""
        now = datetime.now(UTC)
        async with self._database.writing() as connection:
            row = (await connection.execute(_row(facility_id).with_for_update())).one_or_none()
            if row is None:
                return None
            before = _facility(row)
            after = go_on(before)
            if after == before:
                return Changed(before, ())
            events = events_of(before, after, now, [secrets.token_hex(4) for _ in MONITORED])
            after = replace(after, updated_at=written_seconds(now.timestamp()))
            await connection.execute(update(facilities).where(facilities.c.id == facility_id).values(_columns(after)))
            await _index(connection, before, after)
            await self._outbox.put(connection, self._channel, events)
        self._outbox.wake()
        return Changed(after, [event.type or "" for event in events])

    async def announce(self, event: Event) -> None:
        """An event that goes with no change."""
        async with self._database.writing() as connection:
            await self._outbox.put(connection, self._channel, [event])
        self._outbox.wake()

    async def search(self, wanted: Wanted, limit: int, offset: int) -> tuple[int, list[Found]]:
        """How many there are, and a page of them: the nearest first, or by name."""
        columns = select(facilities.c.id, facilities.c.latitude, facilities.c.longitude).order_by(
            facilities.c.folded_name, facilities.c.id
        )
        async with self._database.reading() as connection:
            rows = (await connection.execute(columns.where(*_conditions(wanted)))).all()
            near = _nearest(rows, wanted.region)
            page = near[offset : offset + limit]
            every = select(facilities).where(facilities.c.id.in_([facility_id for facility_id, _ in page]))
            of_id = {row.id: _facility(row) for row in await connection.execute(every)}
        return len(near), [Found(of_id[facility_id], distance) for facility_id, distance in page]

    async def suggest(self, text: str, limit: int) -> list[Facility]:
        """Those that have a word beginning with each word of `text`; first those whose name begins with it all."""
        begins = folded(text)
        words = begins.split()[:MAX_WORDS]
        if not words:
            return []
        first = case((_begins(facilities.c.folded_name, begins), 0), else_=1)
        query = select(facilities).where(*map(_has_word, words)).order_by(first, facilities.c.folded_name)
        async with self._database.reading() as connection:
            return [_facility(row) for row in await connection.execute(query.order_by(facilities.c.id).limit(limit))]

    async def any_simulated(self, share: float) -> str | None:
        """The id of one of the simulated ones, which one by `share` (0 to 1); None if there is none."""
        simulated = facilities.c.simulated.is_(True)
        async with self._database.reading() as connection:
            count = (await connection.execute(select(func.count()).where(simulated))).scalar() or 0
            one = select(facilities.c.id).where(simulated).order_by(facilities.c.id).offset(int(share * count)).limit(1)
            return (await connection.execute(one)).scalar()


def _row(facility_id: str) -> Select[Any]:
    return select(facilities).where(facilities.c.id == facility_id)


def _conditions(wanted: Wanted) -> Iterable[ColumnElement[bool]]:
    yield from map(_has_word, wanted.words[:MAX_WORDS])
    yield from (_has(terms.c.term == term) for term in wanted.exact)
    yield from (facilities.c[name] == value for name, value in wanted.fields.items())
    if wanted.max_wait is not None:
        yield facilities.c.avg_wait_minutes <= wanted.max_wait
    if wanted.region is not None:
        box = box_of(wanted.region)
        yield facilities.c.latitude.between(box.south, box.north)
        yield or_(*(facilities.c.longitude.between(west, east) for west, east in box.longitudes))


def _has_word(word: str) -> ColumnElement[bool]:
    return _has(_begins(terms.c.term, word[:MAX_TERM_CHARACTERS]))


def _has(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    return facilities.c.id.in_(select(terms.c.facility_id).where(condition))


def _begins(column: ColumnElement[str], text: str) -> ColumnElement[bool]:
    return and_(column >= text, column < text + _LAST)


def _nearest(rows: Sequence[Any], region: Region | None) -> list[tuple[str, float | None]]:
    if region is None:
        return [(row.id, None) for row in rows]
    centre = region.latitude, region.longitude
    places = [(row.id, (row.latitude, row.longitude)) for row in rows]
    inside = [(one, distance_km(centre, place)) for one, place in places if region.contains(place)]
    return [*sorted(inside, key=lambda found: found[1])]


async def _index(connection: AsyncConnection, before: Facility, after: Facility) -> None:
    """Bring the search index up to date."""
    old, new = (frozenset(row["term"] for row in _terms(one)) for one in (before, after))
    if gone := old - new:
        mine = terms.c.facility_id == after.id
        await connection.execute(delete(terms).where(mine, terms.c.term.in_(gone)))
    if come := new - old:
        await connection.execute(insert(terms), [{"term": term, "facility_id": after.id} for term in come])


def _terms(facility: Facility) -> list[dict[str, str]]:
    cut = sorted({term[:MAX_TERM_CHARACTERS] for term in terms_of(facility)})
    return [{"term": term, "facility_id": facility.id} for term in cut]


def _columns(facility: Facility) -> dict[str, Any]:
    return asdict(facility) | {
        "folded_name": folded(facility.name)[:MAX_NAME_CHARACTERS],
        "insurance_providers": ujson.dumps(facility.insurance_providers),
        "prices": ujson.dumps(facility.prices),
    }


def _facility(row: Any) -> Facility:
    values = dict(row._mapping)
    del values["folded_name"]
    values["insurance_providers"] = tuple(ujson.loads(values["insurance_providers"]))
    return Facility(**values | {"prices": ujson.loads(values["prices"])})
