"""The commands against a real server: in this process where they end by themselves, else in their own."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from click.testing import Result

from server.commands.publish import publish
from server.commands.tail import tail
from server.commands.token import token
from tests.commands.conftest import Run
from tests.commands.program import Program
from tests.conftest import StartNode
from tests.harness.process import ROOT, TOKEN_SECRET, Node, free_port, wait_until

Start = Callable[..., Program]
# A Python process takes its time to start while others want the processor, too.
wait = partial(wait_until, seconds=40)


@pytest.fixture
def ringcast(tmp_path: Path) -> Iterator[Start]:
    """`ringcast(argument, …)` starts a command; it is ended with the test."""
    started: list[Program] = []

    def start(*arguments: str, terminal: bool = False, **variables: str) -> Program:
        folder = tmp_path / f"command-{len(started)}"
        folder.mkdir()
        started.append(Program(folder, *arguments, terminal=terminal, **variables))
        return started[-1]

    yield start
    for program in started:
        program.close()


def _data(result: Program | Result) -> list[str]:
    text = result.out if isinstance(result, Program) else result.stdout
    return [json.loads(line)["data"] for line in text.splitlines()]


def _lines(count: int, first: int = 0) -> bytes:
    return "".join(f'{{"data": {number}}}\n' for number in range(first, first + count)).encode()


def test_each_line_of_standard_input_is_published_while_more_may_come(shared_node: Node, ringcast: Start) -> None:
    options = ("--url", shared_node.url, "--channel", "roundtrip")
    reader = ringcast("tail", *options, "--json", "--count", "2")
    writer = ringcast("publish", *options, "-")
    wait(lambda: "connected" in reader.err, what="the connection of tail")
    writer.write('{"data": "é\\nb"}\n')
    wait(lambda: len(writer.out.splitlines()) == 1, what="the first id, while input is open,")
    writer.write('{"data": {"x": 2}, "type": "t"}\n')
    assert reader.wait() == 0
    assert _data(reader) == ["é\nb", '{"x":2}']
    wait(lambda: len(writer.out.splitlines()) == 2, what="the second id")
    assert [json.loads(line)["id"] for line in reader.out.splitlines()] == writer.out.split()


def test_tail_begins_where_it_is_told(shared_node: Node, run: Run) -> None:
    options = ("--url", shared_node.url, "--channel", "beginning")
    ids = run(publish, *options, "-", input=_lines(5)).stdout.split()
    begin = partial(run, tail, *options, "--json")
    assert _data(begin("--count", "5", "--from", "earliest")) == ["0", "1", "2", "3", "4"]
    assert _data(begin("--count", "3", "--from", ids[1])) == ["2", "3", "4"]
    assert _data(begin("--count", "2", "--last", "2")) == ["3", "4"]


def test_many_lines_go_out_and_come_back_whole(node: StartNode, run: Run) -> None:
    server = node()
    assert len(run(publish, "--url", server.url, "-", input=_lines(9000)).stdout.splitlines()) == 9000
    read = run(tail, "--url", server.url, "--from", "earliest", "--count", "9000", "--json")
    assert _data(read) == [str(number) for number in range(9000)]


@pytest.mark.usefixtures("delays")
def test_an_event_published_again_with_its_key_is_the_same_event(shared_node: Node, run: Run) -> None:
    again = partial(run, publish, "--url", shared_node.url, "--channel", "keys", "--idempotency-key", "order-7")
    assert again("a").stdout == again("a").stdout
    refused = again("b")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "409 Conflict" in refused.stderr


@pytest.mark.fault
def test_tail_and_publish_outlive_a_killed_server_without_loss_or_repeat(
    tmp_path: Path, ringcast: Start, seed: int
) -> None:
    """Killed when some of the lines so far have come; more are written while it is away."""
    rng = random.Random(seed)
    server = Node(tmp_path, relay=f"sqlite:{tmp_path}/events.db", retry_min_ms=10, retry_max_ms=20).start()
    options = ("--url", server.url, "--channel", "prices")
    reader = ringcast("tail", *options, "--json")
    writer = ringcast("publish", *options, "--tries", "100", "-")
    try:
        wait(lambda: "connected" in reader.err, what="the connection of tail")
        some, soon, later = (rng.randrange(1, 30) for _ in range(3))
        for number in range(some + soon):
            writer.write(_lines(1, number).decode())
        wait(lambda: len(_data(reader)) >= some, what="some events")
        server.kill()
        writer.write(_lines(later, some + soon).decode())
        failures = rng.randrange(1, 4)
        wait(lambda: writer.err.count("trying again") >= failures, what="a failure of publish")
        server.start()
        wait(lambda: len(_data(reader)) >= some + soon + later, what="the last event")
        assert _data(reader) == [str(number) for number in range(some + soon + later)]
    finally:
        server.kill()
    assert "gap" not in reader.err


def test_a_drained_reader_is_back_when_the_server_is(tmp_path: Path, ringcast: Start, run: Run) -> None:
    server = Node(tmp_path, drain_seconds=0, relay=f"sqlite:{tmp_path}/events.db").start()
    reader = ringcast("tail", "--url", server.url, "--json", "--count", "1")
    try:
        wait(lambda: "connected" in reader.err, what="the connection of tail")
        assert server.stop() == 0
        wait(lambda: "this node is shutting down" in reader.err, what="the farewell")
        server.start()
        assert run(publish, "--url", server.url, "back").exit_code == 0
        assert reader.wait() == 0
    finally:
        server.kill()
    assert _data(reader) == ["back"]
    assert "gap" not in reader.err


def test_a_token_opens_what_it_grants_and_nothing_else(
    node: StartNode, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = node(jwt_secret=TOKEN_SECRET)
    text = run(token, "--secret", TOKEN_SECRET, "--publish", "a", "--subscribe", "a").stdout.strip()
    monkeypatch.setenv("RINGCAST_URL", server.url)
    assert run(publish, "--topic", "a", "x").exit_code == 3
    assert run(tail).exit_code == 3
    monkeypatch.setenv("RINGCAST_TOKEN", text)
    assert run(publish, "--topic", "b", "x").exit_code == 3
    assert run(publish, "--topic", "a", "--channel", "other", "x").exit_code == 3
    assert run(publish, "--topic", "a", "--private", "secret").exit_code == 0
    assert _data(run(tail, "--topic", "a", "--from", "earliest", "--count", "1", "--json")) == ["secret"]


def test_a_token_for_another_channel_and_for_operating_does_just_that(node: StartNode, run: Run) -> None:
    server = node(jwt_secret=TOKEN_SECRET)
    rights = ("--channel", "prices", "--publish", "*", "--operate")
    text = run(token, "--secret", TOKEN_SECRET, *rights).stdout.strip()
    given = ("--url", server.url, "--token", text)
    assert run(publish, *given, "--channel", "prices", "x").exit_code == 0
    assert run(publish, *given, "x").exit_code == 3
    forwarded = {"X_Forwarded_For": "192.0.2.1"}
    assert server.get("/stats", **forwarded)[0] == 404
    assert server.get("/stats", Authorization=f"Bearer {text}", **forwarded)[0] == 200


def test_the_end_of_a_token_ends_the_tail(node: StartNode, run: Run) -> None:
    server = node(jwt_secret=TOKEN_SECRET)
    text = run(token, "--secret", TOKEN_SECRET, "--subscribe", "*", "--expires-seconds", "5").stdout.strip()
    ended = run(tail, "--url", server.url, "--token", text)
    assert ended.exit_code == 3
    assert ended.stderr.splitlines() == ["# connected to channel main", "# ended: the token has expired"]


def test_a_closed_channel_is_not_found(node: StartNode, run: Run) -> None:
    options = ("--url", node(open_channels=False).url, "--channel", "no")
    assert run(publish, *options, "x").exit_code == 4
    assert run(tail, *options).exit_code == 4


def test_on_a_terminal_tail_draws_a_counter_and_ctrl_c_ends_it(shared_node: Node, ringcast: Start, run: Run) -> None:
    options = ("--url", shared_node.url, "--channel", "counter")
    reader = ringcast("tail", *options, terminal=True)
    wait(lambda: "0 events" in reader.screen and "live" in reader.screen, what="the counter")
    assert run(publish, *options, "look at me").exit_code == 0
    wait(lambda: "look at me" in reader.screen and "1 event ·" in reader.screen, what="the counted event")
    assert reader.interrupt() == 130
    last = reader.screen.rstrip().split("\x1b[K")[-1]
    assert re.fullmatch(r"1 event · .* · 0 gaps · 0 reconnects · \d+ s", last)


def test_ctrl_c_ends_a_publish_that_waits(ringcast: Start) -> None:
    writer = ringcast("publish", "--url", f"http://127.0.0.1:{free_port()}", "--tries", "100", "x")
    wait(lambda: "trying again" in writer.err)
    assert writer.interrupt() != 0
    assert "Traceback" not in writer.err


def test_a_tail_whose_reader_left_ends_quietly(shared_node: Node, run: Run) -> None:
    options = ("--url", shared_node.url, "--channel", "pipe")
    command = [sys.executable, "-m", "server", "tail", *options, "--from", "earliest"]
    run(publish, *options, "first")
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        assert reader.stderr is not None
        assert b"first" in reader.stdout.readline()
        reader.stdout.close()
        wait(lambda: run(publish, *options, "next").exit_code == 0 and reader.poll() is not None)
        assert b"Traceback" not in reader.stderr.read()


def test_check_config_is_a_command_of_the_program(ringcast: Start) -> None:
    good, bad = ringcast("check-config"), ringcast("check-config", RINGCAST_PORT="x")
    assert (good.wait(), bad.wait()) == (0, 2)
    assert "ring_events" in good.out
    assert bad.err.startswith("port (environment RINGCAST_PORT): ")
