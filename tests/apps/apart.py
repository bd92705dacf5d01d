"""Nodes for two who must see nothing of each other: one node over each kind of database, and two nodes.

Owns what is started, and ends it. Must know no application and no test. Invariant: several nodes share a Redis and a
PostgreSQL, as those of users do. Cost: of the two nodes, also a Redis.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import starting
from tests.harness.databases import DATABASES, new_database
from tests.harness.process import Node
from tests.harness.redis import RedisServer

TWO_NODES = "two nodes"
PLACES = (*DATABASES, TWO_NODES)


class Apart(NamedTuple):
    """The node of the one whose things are hidden, and the node of the other. They may be one."""

    here: Node
    there: Node

    @property
    def nodes(self) -> list[Node]:
        return [self.here] if self.here is self.there else [self.here, self.there]


@contextmanager
def apart(request: pytest.FixtureRequest, place: str, folder: Path, **settings: object) -> Iterator[Apart]:
    """The nodes of one of `PLACES`, with these settings."""
    with ExitStack() as ends:
        kind = "postgresql" if place == TWO_NODES else place
        common = settings | {"database": new_database(request, kind, folder), "drain_seconds": 0}
        if place == TWO_NODES:
            redis = RedisServer(folder).start()
            ends.callback(redis.stop)
            common["relay"] = redis.url
        start = ends.enter_context(starting(folder, **common))
        first = start()
        yield Apart(first, start() if place == TWO_NODES else first)
