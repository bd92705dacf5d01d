"""The negative control: servers that break the contract in one way each must fail the checker, and one that keeps it
must pass. Each is a real node behind a proxy that spoils what readers get.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from tests.faults import vital_signs
from tests.faults.mutant import (
    Mutant,
    Spoil,
    doubles,
    drops,
    drops_and_tells,
    exchanges_numbers,
    gives_another_id,
    hides_gaps,
    makes_up,
    publishes_twice,
    swaps,
    tells_of_nothing,
    tells_of_nothing_beside_a_hole,
)
from tests.faults.witnesses import Scene
from tests.harness.process import Node, wait_until
from tests.threats.conftest import Start, finish

ENOUGH = 40  # events, so that what is wrong with number 12 or 22 is seen by everybody


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    one = Node(tmp_path_factory.mktemp("mutants"), drain_seconds=0).start()
    yield one
    finish(one)


def problems(mutant: Mutant) -> list[str]:
    """What the checker says of a server without a fault."""
    with mutant, Scene(mutant.port, subscribers=2) as scene:
        scene.wait_for(ENOUGH)
    return scene.history.problems()


def test_a_server_that_keeps_the_contract_passes(node: Node) -> None:
    assert problems(Mutant(node.port)) == []


def test_a_server_that_declares_what_it_leaves_out_passes(node: Node) -> None:
    assert problems(Mutant(node.port, lambda: drops_and_tells(1))) == []


SPOILED: dict[str, tuple[Callable[[], Spoil], str]] = {
    "drops an event": (drops, "12 lost outside a gap"),
    "doubles one": (doubles, "12 came twice"),
    "publishes a key twice": (publishes_twice, "12 came twice"),
    "swaps neighbours": (swaps, "12 with id"),
    "exchanges two of a publisher for everybody": (exchanges_numbers, "12 came behind 13"),
    "makes one up": (makes_up, "999999 is a phantom"),
    "leaves some out and says nothing": (lambda: drops_and_tells(0), "12 lost outside a gap"),
    "tells of a hole too late": (lambda: drops_and_tells(1, late=True), "12 lost outside a gap"),
    "tells of a hole three times": (lambda: drops_and_tells(3), "2 gaps declare again"),
    "tells of nothing": (tells_of_nothing, "where 0 are missing"),
    "tells of nothing beside a hole": (tells_of_nothing_beside_a_hole, "1 gaps declared before 22 where 0 are missing"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_mutant_fails(node: Node, name: str) -> None:
    spoil, text = SPOILED[name]
    found = problems(Mutant(node.port, spoil))
    for reader in ("subscriber 0", "subscriber 1", "slow"):  # one that hangs up can miss what is wrong
        assert any(one.startswith(f"{reader}: ") and text in one for one in found), found


def test_a_mutant_that_gives_one_reader_other_ids_fails(node: Node) -> None:
    found = problems(Mutant(node.port, gives_another_id, spoiled_connections=1))
    assert found
    assert all("12 has id" in one for one in found), found


def test_a_mutant_that_gives_foreign_events_fails(node: Node) -> None:
    found = problems(Mutant(node.port, selects_more=True))
    assert found
    assert all(one.endswith("is foreign") for one in found), found


def test_a_mutant_that_gives_again_what_was_passed_fails(start: Start) -> None:
    """Behind a gap, which would excuse it if the log had turned."""
    with Mutant(start().port, forgets_a_cursor=True) as mutant, Scene(mutant.port, subscribers=2) as scene:
        wait_until(lambda: not mutant.forgets_a_cursor, 20, "one that came back")
        scene.wait_for(ENOUGH)
    found = scene.history.problems(needless_gaps=True)
    assert found
    assert all(one.startswith("returning") and "came again though no log turned" in one for one in found), found


def test_a_mutant_that_hides_that_the_log_was_lost_fails(start: Start) -> None:
    node = start()
    with Mutant(node.port, hides_gaps) as mutant, Scene(mutant.port, subscribers=2) as scene:
        scene.wait_for(ENOUGH)
        node.kill()
        node.start()
        scene.wait_for(ENOUGH)
    found = scene.history.problems(needless_gaps=True)
    for reader in ("subscriber 0", "subscriber 1", "slow", "returning", "returning elsewhere"):
        assert any(one.startswith(f"{reader}: ") and "came after" in one for one in found), found


def test_a_mutant_that_stands_still_behind_a_fault_fails(node: Node) -> None:
    with Mutant(node.port) as mutant, Scene(mutant.port, subscribers=2) as scene:
        scene.wait_for(ENOUGH)
        mutant.hold()
        scene.wait_for(ENOUGH)
        scene.healed(seconds=0.3)
        late = time.monotonic() + 0.3
        wait_until(lambda: time.monotonic() > late)
        mutant.heal()
        scene.wait_for(ENOUGH)
    found = scene.history.problems()
    assert {"subscriber 0", "subscriber 1"} <= {one.partition(":")[0] for one in found}
    assert all("no event within 0.3 s" in one for one in found), found


def test_a_mutant_that_is_ready_whatever_happens_fails(node: Node) -> None:
    with Mutant(node.port) as mutant, Scene(mutant.port, subscribers=2) as scene:
        scene.broken(mutant.port, seconds=0.3)
        mutant.hold()
        scene.wait_for(ENOUGH)
        mutant.heal()
        scene.healed()
    [found] = scene.history.problems()
    assert "readiness did not tell of the begin" in found


def test_a_mutant_that_keeps_connections_fails(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vital_signs, "LEFT_SECONDS", 0.5)
    found = problems(Mutant(node.port, keeps_connections=True))
    assert found
    assert all("left behind" in one for one in found), found
