"""The commands against a real server, as processes of their own."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.commands.program import Program
from tests.conftest import StartNode
from tests.harness.process import TOKEN_SECRET, Node, free_port, wait_until

Start = Callable[..., Program]


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


def _data(program: Program) -> list[str]:
    return [json.loads(line)["data"] for line in program.out.splitlines()]


def test_what_is_published_is_tailed(shared_node: Node, ringcast: Start) -> None:
    tail = ringcast("tail", "--channel", "roundtrip", "--json", "--count", "3", RINGCAST_URL=shared_node.url)
    wait_until(lambda: "connected" in tail.err, what="the connection of tail")
    publish = ringcast("publish", "--url", shared_node.url, "--channel", "roundtrip", "--topic", "a", "é\nb")
    assert publish.wait() == 0
    lines = ringcast("publish", "--url", shared_node.url, "--channel", "roundtrip", "-")
    lines.write('{"data": 1}\n')
    wait_until(lambda: len(lines.out.splitlines()) == 1, what="the first line, while input is open,")
    lines.write('{"data": {"x": 2}, "type": "t"}\n')
    wait_until(lambda: len(lines.out.splitlines()) == 2, what="the second line")
    assert tail.wait() == 0
    assert _data(tail) == ["é\nb", "1", '{"x":2}']
    ids = [json.loads(line)["id"] for line in tail.out.splitlines()]
    assert ids == publish.out.split() + lines.out.split()


def test_tail_begins_where_it_is_told(shared_node: Node, ringcast: Start) -> None:
    options = ("--url", shared_node.url, "--channel", "beginning")
    publish = ringcast("publish", *options, "-")
    publish.write("".join(f'{{"data": {number}}}\n' for number in range(5)))
    wait_until(lambda: len(publish.out.splitlines()) == 5)
    second = publish.out.splitlines()[1]
    tails = [
        ringcast("tail", *options, "--json", "--count", "5", "--from", "earliest"),
        ringcast("tail", *options, "--json", "--count", "3", "--from", second),
        ringcast("tail", *options, "--json", "--count", "2", "--last", "2"),
    ]
    assert [tail.wait() for tail in tails] == [0, 0, 0]
    assert [_data(tail) for tail in tails] == [["0", "1", "2", "3", "4"], ["2", "3", "4"], ["3", "4"]]


def test_tail_loses_and_repeats_nothing_when_the_server_is_killed(tmp_path: Path, ringcast: Start) -> None:
    settings = {"relay": f"sqlite:{tmp_path}/events.db", "retry_min_ms": 10, "retry_max_ms": 20}
    server = Node(tmp_path, **settings).start()
    options = ("--url", server.url, "--channel", "prices")
    tail = ringcast("tail", *options, "--json")
    try:
        wait_until(lambda: "connected" in tail.err)
        for number in range(3):
            body = json.dumps({"data": str(number)})
            server.request("POST", "/channels/prices/events", body, Content_Type="application/json")
            wait_until(lambda number=number: len(tail.out.splitlines()) == number + 1)  # type: ignore[misc]
            server.kill()
            # Published while nobody serves: tried until somebody does.
            publish = ringcast("publish", *options, "--tries", "50", f"{number} again")
            wait_until(lambda publish=publish: "trying again" in publish.err)  # type: ignore[misc]
            server.start()
            assert publish.wait() == 0
            tail_wants = 2 * number + 2
            wait_until(lambda wants=tail_wants: len(tail.out.splitlines()) == wants)  # type: ignore[misc]
            break
    finally:
        server.kill()
    assert _data(tail) == ["0", "0 again"]


def test_a_drained_reader_is_back_when_the_server_is(tmp_path: Path, ringcast: Start) -> None:
    server = Node(tmp_path, drain_seconds=0, relay=f"sqlite:{tmp_path}/events.db").start()
    tail = ringcast("tail", "--url", server.url, "--json", "--count", "1")
    try:
        wait_until(lambda: "connected" in tail.err)
        assert server.stop() == 0
        wait_until(lambda: "this node is shutting down" in tail.err)
        server.start()
        wait_until(lambda: tail.err.count("connected") == 2)
        assert ringcast("publish", "--url", server.url, "back").wait() == 0
        assert tail.wait() == 0
    finally:
        server.kill()
    assert _data(tail) == ["back"]
    assert "gap" not in tail.err


def test_a_token_opens_what_it_grants_and_nothing_else(node: StartNode, ringcast: Start) -> None:
    server = node(jwt_secret=TOKEN_SECRET)
    grants = ("--publish", "a", "--subscribe", "a")
    token = ringcast("token", *grants, "--expires-seconds", "60", RINGCAST_JWT_SECRET=TOKEN_SECRET)
    assert token.wait() == 0
    variables = {"RINGCAST_URL": server.url, "RINGCAST_TOKEN": token.out.strip()}
    granted = ringcast("publish", "--topic", "a", "--private", "secret", **variables)
    codes = {
        "granted": granted.wait(),
        "another topic": ringcast("publish", "--topic", "b", "x", **variables).wait(),
        "another channel": ringcast("publish", "--channel", "other", "--topic", "a", "x", **variables).wait(),
        "no token": ringcast("publish", "--url", server.url, "--topic", "a", "x").wait(),
        "reading without token": ringcast("tail", "--url", server.url).wait(),
    }
    assert codes == {"granted": 0, "another topic": 3, "another channel": 3, "no token": 3, "reading without token": 3}
    tail = ringcast("tail", "--topic", "a", "--from", "earliest", "--count", "1", "--json", **variables)
    assert (tail.wait(), _data(tail)) == (0, ["secret"])


def test_the_end_of_a_token_ends_the_tail(node: StartNode, ringcast: Start) -> None:
    server = node(jwt_secret=TOKEN_SECRET)
    token = ringcast("token", "--subscribe", "*", "--expires-seconds", "3", RINGCAST_JWT_SECRET=TOKEN_SECRET)
    assert token.wait() == 0
    tail = ringcast("tail", "--url", server.url, RINGCAST_TOKEN=token.out.strip())
    assert tail.wait() == 3
    assert "the token has expired" in tail.err


def test_a_closed_channel_is_not_found(node: StartNode, ringcast: Start) -> None:
    server = node(open_channels=False)
    commands = [ringcast(*words, "--url", server.url, "--channel", "no") for words in (("publish", "x"), ("tail",))]
    assert [command.wait() for command in commands] == [4, 4]


def test_many_lines_go_out_and_come_back_whole(node: StartNode, ringcast: Start) -> None:
    server = node()
    publish = ringcast("publish", "--url", server.url, "-")
    publish.write("".join(f'{{"data": {number}}}\n' for number in range(9000)))
    wait_until(lambda: len(publish.out.splitlines()) == 9000)
    tail = ringcast("tail", "--url", server.url, "--from", "earliest", "--count", "9000", "--json")
    assert tail.wait() == 0
    assert _data(tail) == [str(number) for number in range(9000)]


def test_on_a_terminal_tail_draws_a_counter_and_ctrl_c_ends_it(shared_node: Node, ringcast: Start) -> None:
    tail = ringcast("tail", "--url", shared_node.url, "--channel", "counter", terminal=True)
    wait_until(lambda: "0 events" in tail.screen and "live" in tail.screen, what="the counter")
    publish = ringcast("publish", "--url", shared_node.url, "--channel", "counter", "look at me")
    assert publish.wait() == 0
    wait_until(lambda: "look at me" in tail.screen and "1 event ·" in tail.screen, what="the counted event")
    assert tail.interrupt() == 130
    last = tail.screen.rstrip().split("\x1b[K")[-1]
    assert re.fullmatch(r"1 event · .* · 0 gaps · 0 reconnects · \d+ s", last)


def test_ctrl_c_ends_a_publish_that_waits(ringcast: Start) -> None:
    publish = ringcast("publish", "--url", f"http://127.0.0.1:{free_port()}", "--tries", "100", "x")
    wait_until(lambda: "trying again" in publish.err)
    assert publish.interrupt() != 0
    assert "Traceback" not in publish.err


def test_a_reader_of_the_output_that_leaves_is_no_failure_worth_a_traceback(shared_node: Node, ringcast: Start) -> None:
    publish = ringcast("publish", "--url", shared_node.url, "--channel", "pipe", "-")
    publish.write('{"data": 1}\n' * 10)
    wait_until(lambda: len(publish.out.splitlines()) == 10)
    tail = ringcast("tail", "--url", shared_node.url, "--channel", "pipe", "--from", "earliest", "--count", "10")
    assert tail.wait() == 0


def test_check_config_is_a_command_of_the_program(ringcast: Start) -> None:
    good, bad = ringcast("check-config"), ringcast("check-config", RINGCAST_PORT="x")
    assert (good.wait(), bad.wait()) == (0, 2)
    assert "ring_events" in good.out
    assert bad.err.startswith("port (environment RINGCAST_PORT): ")
