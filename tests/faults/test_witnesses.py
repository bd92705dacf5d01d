"""The scene that every fault is looked at from: who is in it, and what it waits for."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from tests.faults.test_crashes import filled
from tests.faults.witnesses import ELSEWHERE, TOPIC, Scene
from tests.harness.process import wait_until
from tests.threats.conftest import Start


def test_some_stay_one_is_slow_and_some_hang_up_and_return(start: Start) -> None:
    with Scene(start().port) as scene:
        slow, *returning = scene.company
        wait_until(lambda: len(slow.log) + 20 < len(scene.subscribers[0].log), 10, "one that is behind")
        wait_until(lambda: all(one.hung_up for one in returning), 20, "both to have hung up")
    assert scene.history.problems() == []
    assert [one.connections for one in [*scene.subscribers, slow]] == [1] * 5
    assert all(one.connections == one.hung_up + 1 for one in returning)
    logs = scene.history.seen | scene.history.others
    assert {scene.history.topics[entry.number] for name in scene.history.seen for entry in logs[name]} == {TOPIC}
    assert {scene.history.topics[entry.number] for entry in logs["returning elsewhere"]} == {ELSEWHERE}


def test_what_was_refused_is_not_waited_for(start: Start, tmp_path: Path) -> None:
    node = start(relay=f"sqlite:{tmp_path / 'log.db'}")
    with Scene(node.port) as scene:
        scene.wait_for(5)
        filled(node, 1)
        wait_until(lambda: "fail" in list(scene.history.outcomes.values()), 5, "a refusal")
        with pytest.raises(AssertionError, match="1 events acknowledged"):
            scene.wait_for(1, seconds=0.5)
        scene.wait_for_tries(5)
        filled(node, resource.RLIM_INFINITY)
        scene.wait_for(5)
    assert scene.history.problems() == []
