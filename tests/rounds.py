"""Tests of faults, round after round: `make faults` runs each of them RINGCAST_FAULT_ROUNDS times.

Owns which tests are tests of a fault (those of tests/faults, and those with the marker `fault` wherever they are), how
often they run, and the seed of a round. Must know no fault. Invariants: round n has the same seed in every run and for
every test; a single round is the first. Cost: nothing for other tests.

A test that takes `seed` draws from it when the fault comes, how long it lasts and whom it hits.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROUNDS = int(os.environ.get("RINGCAST_FAULT_ROUNDS", "1"))
FIRST_SEED = 22
FAULTS = Path(__file__).parent / "faults"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "fault: injects a fault; `make faults` runs it many times.")


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """What stands in tests/faults needs no marker of its own. (None: pytest makes the module.)"""
    if FAULTS not in module_path.parents:
        return None
    module: pytest.Module = pytest.Module.from_parent(parent, path=module_path)
    module.add_marker("fault")
    return module


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test of a fault as many times as there are rounds."""
    if ROUNDS > 1 and metafunc.definition.get_closest_marker("fault"):
        metafunc.fixturenames.append("round_number")
        metafunc.parametrize("round_number", range(ROUNDS))


@pytest.fixture
def round_number() -> int:
    """The only round, unless there are more."""
    return 0


@pytest.fixture
def seed(round_number: int) -> int:
    """What a test draws its moments from."""
    return FIRST_SEED + round_number
