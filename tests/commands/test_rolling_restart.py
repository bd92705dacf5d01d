"""`ringcast rolling-restart` with real nodes, which are restarted by a supervisor of the test's own."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from server.commands.rolling_restart import rolling_restart
from tests.commands.conftest import Run
from tests.commands.program import Program
from tests.commands.scripted import Scripted, answer
from tests.faults.witnesses import Scene
from tests.harness.process import Node, free_port, wait_until

QUICK = ("--settle-seconds", "0", "--wait-seconds", "15")


class Supervisor:
    """Some nodes, and a thread that restarts the one whose name a file asks for, as a service manager would.

    `command` asks; it returns at once, or if it `waits` when the node is there again. `log` is what happened, in
    order; nodes in `lost` are stopped and not started.
    """

    def __init__(self, folder: Path, count: int, *, waits: bool = False, **settings: object) -> None:
        self.folder = folder
        self.waits = waits
        self.nodes = [Node(folder, **({"drain_seconds": 0.2} | settings)).start() for _ in range(count)]
        # Ages are told in tenths of a second: one that has just begun would be taken for the new process.
        wait_until(lambda: all(json.loads(node.get("/health")[2])["uptime_seconds"] > 0.3 for node in self.nodes))
        self.names = [f"node-{number}" for number in range(count)]
        self.log: list[str] = []
        self.lost: set[str] = set()
        self.failures: list[Exception] = []
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    @property
    def arguments(self) -> list[str]:
        return [f"{name}={node.url}" for name, node in zip(self.names, self.nodes, strict=True)]

    @property
    def command(self) -> str:
        if not self.waits:
            return f"touch {self.folder}/restart-{{name}}"
        wait = "while [ -e restart-$0 ]; do sleep 0.05; done"
        return f"sh -c 'cd {self.folder} && touch restart-$0 && {wait}' {{name}}"

    def node(self, name: str) -> Node:
        return self.nodes[self.names.index(name)]

    def pids(self) -> list[int]:
        return [node.pid for node in self.nodes]

    def _run(self) -> None:
        try:
            while not self._leaving.wait(0.02):
                for name in self.names:
                    if (wish := self.folder / f"restart-{name}").exists():
                        self._restart(name)
                        wish.unlink()
        except Exception as error:
            self.failures.append(error)

    def _restart(self, name: str) -> None:
        if not self.waits and self._ready(self.node(name)):
            self._let_ask(self.node(name))
        self.log.append(f"{name} away; ready: {sum(self._ready(node) for node in self.nodes)}")
        assert self.node(name).stop() == 0
        if name not in self.lost:
            self.node(name).start()
            self.log.append(f"{name} back")

    @staticmethod
    def _let_ask(node: Node) -> None:
        """Until the old process was asked whether it is ready, and how old it is: it must not be taken for the new one.

        What its door hands over are such questions alone (not streams, not publishes), ours among them.
        """
        first, ours = _handed_over(node), itertools.count(1)
        wait_until(lambda: _handed_over(node) - first - next(ours) >= 2, 10, "two questions that are not ours")

    @staticmethod
    def _ready(node: Node) -> bool:
        with contextlib.suppress(OSError):
            return node.get("/ready")[0] == 200
        return False

    def close(self) -> None:
        self._leaving.set()
        self._thread.join(30)
        for node in self.nodes:
            node.kill()
        assert not self.failures


def _handed_over(node: Node) -> int:
    return int(json.loads(node.get("/stats")[2])["door"]["handed_over"])


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Callable[..., Supervisor]]:
    started: list[Supervisor] = []

    def start(count: int = 3, **settings: object) -> Supervisor:
        started.append(Supervisor(tmp_path, count, **settings))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.mark.parametrize("waits", [False, True])
def test_nodes_are_restarted_one_after_the_other(supervisor: Callable[..., Supervisor], run: Run, waits: bool) -> None:
    """FLT-10: each only when the one before serves again, whether or not the command waits for that."""
    nodes = supervisor(waits=waits)
    before = nodes.pids()
    done = run(rolling_restart, *QUICK, "--restart", nodes.command, *nodes.arguments)
    assert done.exit_code == 0, done.output
    wait_until(lambda: nodes.log[-1] == "node-2 back")  # the command may see it first
    assert nodes.log == [line for name in nodes.names for line in (f"{name} away; ready: 3", f"{name} back")]
    assert not set(before) & set(nodes.pids())
    assert [line.split(":")[0] for line in done.output.splitlines()] == [name for name in nodes.names for _ in "ab"]


def test_the_first_that_does_not_come_back_ends_it(supervisor: Callable[..., Supervisor], run: Run) -> None:
    """The third is left alone, and exit code 1 says so."""
    nodes = supervisor(waits=True)  # the first is back, and the second away, before their time begins
    nodes.lost = {"node-1"}
    third = nodes.nodes[2].pid
    quick = ("--settle-seconds", "0", "--wait-seconds", "1")
    done = run(rolling_restart, *quick, "--restart", nodes.command, *nodes.arguments)
    assert done.exit_code == 1
    assert "node-0: ready after " in done.output
    assert "stopped: node-1 did not come back within 1 s (Connection refused)" in done.output
    assert nodes.log[-1] == "node-1 away; ready: 3"
    assert [line for line in nodes.log if "node-2" in line] == []
    assert nodes.nodes[2].pid == third and nodes.nodes[2].get("/ready")[0] == 200


def test_a_node_that_was_not_restarted_does_not_count_as_back(run: Run, tmp_path: Path) -> None:
    """It is ready, because the command did nothing."""
    node = Node(tmp_path).start()
    try:
        wait_until(lambda: json.loads(node.get("/health")[2])["uptime_seconds"] > 0.2)  # the command rounds by 0.1
        done = run(rolling_restart, "--wait-seconds", "1", "--restart", "true", f"a={node.url}")
    finally:
        node.kill()
    assert done.exit_code == 1
    assert "a did not come back within 1 s (it was not restarted)" in done.output


@pytest.mark.parametrize(
    ("command", "reason"),
    [("false", "the restart command ended with 1"), ("/no/such/program", "No such file or directory")],
)
def test_a_command_that_fails_ends_it(run: Run, tmp_path: Path, command: str, reason: str) -> None:
    node = Node(tmp_path).start()
    try:
        done = run(rolling_restart, *QUICK, "--restart", command, f"a={node.url}")
        assert node.get("/ready")[0] == 200
    finally:
        node.kill()
    assert done.exit_code == 1
    assert reason in done.output


def test_nothing_is_begun_while_another_node_is_away(supervisor: Callable[..., Supervisor], run: Run) -> None:
    """With two of three away there is none to spare; they may come back one by one, though, before the third goes."""
    nodes = supervisor()
    nodes.nodes[1].stop()
    nodes.nodes[2].stop()
    done = run(rolling_restart, *QUICK, "--restart", nodes.command, *nodes.arguments)
    assert done.exit_code == 1
    assert "stopped: node-2 is not ready (Connection refused): node-1 has to stay" in done.output
    assert nodes.log == []


def test_a_node_that_is_away_goes_first(supervisor: Callable[..., Supervisor], run: Run) -> None:
    """After a run that stopped, the next one brings back what was lost before it takes another."""
    nodes = supervisor()
    nodes.nodes[2].stop()
    done = run(rolling_restart, *QUICK, "--restart", nodes.command, *nodes.arguments)
    assert done.exit_code == 0, done.output
    assert [line.split()[0] for line in nodes.log if "away" in line] == ["node-2", "node-0", "node-1"]
    assert nodes.log[0] == "node-2 away; ready: 2"


def test_a_dry_run_changes_nothing_and_says_what_would_be_done(supervisor: Callable[..., Supervisor], run: Run) -> None:
    nodes = supervisor(2)
    before = nodes.pids()
    done = run(rolling_restart, "--dry-run", *nodes.arguments)
    assert done.exit_code == 0
    assert done.output.splitlines() == [
        "node-0: ready",
        "  would run: systemctl restart ringcast@node-0",
        "node-1: ready",
        "  would run: systemctl restart ringcast@node-1",
    ]
    nodes.nodes[0].stop()
    nodes.nodes[1].stop()
    done = run(rolling_restart, "--dry-run", *nodes.arguments)
    assert done.exit_code == 1
    assert "node-0: not ready (Connection refused)" in done.output
    assert nodes.log == [] and nodes.pids() == before


def test_a_node_that_drains_or_has_no_log_is_not_ready(scripted: Callable[..., Scripted], run: Run) -> None:
    """`/ready` has the last word, and its reasons are shown."""
    body = {"ready": False, "checks": {"relay": "no connection", "draining": False}}
    server = scripted(*[answer(503, body)] * 4)
    done = run(rolling_restart, "--dry-run", f"a={server.url}")
    assert 'a: not ready (503 {"relay": "no connection", "draining": false})' in done.output
    assert server.requests[0].line == "GET /ready HTTP/1.1"


def test_a_name_is_one_word_of_the_command_whatever_is_in_it(run: Run) -> None:
    """No shell reads it."""
    url = f"http://127.0.0.1:{free_port()}/prefix"
    done = run(
        rolling_restart, "--dry-run", "--restart", "ssh {host} systemctl restart 'ringcast@{name}' {port}",
        f"a; rm -rf $HOME={url}",
    )  # fmt: skip
    port = url.split(":")[2].partition("/")[0]
    assert f"would run: ssh 127.0.0.1 systemctl restart 'ringcast@a; rm -rf $HOME' {port}" in done.output


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "Missing argument"),
        (["8001", "8001"], "each node once"),
        (["a"], "must be a port, or NAME=http://HOST:PORT"),
        (["a=ftp://x"], "must be http://HOST:PORT"),
        (["a=http://user:canary@x"], "must be no more than"),
        (["--restart", "", "8001"], "must not be empty"),
        (["--restart", "a 'b", "8001"], "must be a command line"),
        (["--restart", "a {who}", "8001"], "must be a command line"),
        (["--wait-seconds", "-1", "8001"], "Invalid value"),
    ],
)
def test_what_cannot_be_meant_is_refused(run: Run, arguments: list[str], reason: str) -> None:
    done = run(rolling_restart, *arguments)
    assert done.exit_code == 2
    assert reason in " ".join(done.output.split())
    assert "canary" not in done.output


@pytest.mark.fault
def test_publishing_and_reading_go_on_without_loss_around_a_restart(
    supervisor: Callable[..., Supervisor], tmp_path: Path, seed: int
) -> None:
    """FLT-10: under load, by the command as it is typed, which returns at once or when the node is back."""
    rng = random.Random(seed)
    drain_seconds = round(rng.uniform(0.1, 1), 2)
    nodes = supervisor(1, waits=rng.random() < 0.5, drain_seconds=drain_seconds, relay=f"sqlite:{tmp_path / 'log.db'}")
    (tmp_path / "program").mkdir()
    with Scene(nodes.nodes[0].port) as scene:
        scene.wait_for(30)
        program = Program(tmp_path / "program", "rolling-restart", *QUICK, "--restart", nodes.command, *nodes.arguments)
        try:
            assert program.wait() == 0
        finally:
            program.close()
        scene.wait_for(30)
    assert scene.history.problems() == []
    assert program.out.splitlines()[1].startswith("node-0: ready after ")
    wait_until(lambda: all("draining" in subscriber.endings for subscriber in scene.subscribers))
