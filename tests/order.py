"""The order in which test modules begin, so that both cores have work until the end.

Owns that order. Must know no test. Invariants: the tests of a module stay together and in their order, which no test
depends on; every process of a run has the same order. Cost: a sort.

Tests of faults wait most of the time, for clocks, limits and what comes back; others compute. A run that has only such
modules left, each in a process of its own, leaves the cores idle. So they are spread among the others, evenly, and have
begun before those end; and of the others the small ones come last.
"""

from __future__ import annotations

from collections import defaultdict

import pytest

SPREAD = 0.8  # of the run; what begins last should end soon


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    modules: defaultdict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        modules[item.nodeid.split("::")[0]].append(item)
    waiting: list[list[pytest.Item]] = []
    computing: list[list[pytest.Item]] = []
    for tests in modules.values():
        faults = any(test.get_closest_marker("fault") for test in tests)
        (waiting if faults else computing).append(tests)
    computing.sort(key=len, reverse=True)
    places = [(SPREAD * at / len(waiting), tests) for at, tests in enumerate(waiting)]
    places += [(at / len(computing), tests) for at, tests in enumerate(computing)]
    places.sort(key=lambda place: place[0])
    items[:] = [test for _, tests in places for test in tests]
