"""A source that is fed with numbers, nodes whose bridges read it, and readers of their streams, through whatever
happens.

Owns the scene and its judgement. Must know no source and no fault. Invariant: behind a scene the checker of faults has
found nothing (order, foreign events, doubles, gaps, what is left behind), and every reader has got each number that its
source acknowledged once, without a gap. Cost: see Scene.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from tests.bridges.feeder import Feeder
from tests.faults.witnesses import Scene
from tests.harness.process import Node

FeederType = TypeVar("FeederType", bound=Feeder)

READING_TASKS = 25  # of a bridge that reads now, and did not when the scene began


class Fed(Scene, Generic[FeederType]):
    """Numbers go in at a source and come out of nodes' streams: readers that stay at each, a slow one, and ones that
    hang up and return."""

    publisher: FeederType

    def __init__(self, feeder_of: Callable[..., FeederType], *nodes: Node, seed: int, every: float) -> None:
        made: Any = feeder_of
        self.publisher_of, self.seed = made, seed
        super().__init__(*(one.port for one in nodes), subscribers=len(nodes), every=every)
        for held in self.held.values():
            held["tasks"] = held.get("tasks", 0) + READING_TASKS

    def miscounted(self) -> dict[str, dict[int, int]]:
        """For each reader, how often it got numbers that it should have got once."""
        history = self.history
        found = {}
        for name, log in (history.seen | history.others).items():
            mine = {number for number, topic in history.topics.items() if topic == history.topic_of[name]}
            came = Counter(entry.number for entry in log)
            wanted = {number for number in mine if history.outcomes[number] == "ok"} | came.keys()
            found[name] = {number: came[number] for number in sorted(wanted) if came[number] != 1 or number < 0}
        return {name: numbers for name, numbers in found.items() if numbers}


@contextmanager
def fed(
    feeder_of: Callable[..., FeederType], *nodes: Node, seed: int, every: float = 0.004
) -> Iterator[Fed[FeederType]]:
    """A scene, judged when it is over. `feeder_of` makes a feeder of what a Publisher is made of."""
    with Fed(feeder_of, *nodes, seed=seed, every=every) as scene:
        yield scene
    problems, miscounted = scene.history.problems(), scene.miscounted()
    assert not problems, problems
    assert not miscounted, miscounted
