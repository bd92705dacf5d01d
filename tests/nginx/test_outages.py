"""No node answers: a native EventSource is told to come back, at a time of its own; everybody else gets the status."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.commands.scripted import HOLD, Scripted
from tests.faults.witnesses import BUSY_SECONDS, RESUMED_SECONDS
from tests.harness.process import Node, free_port, wait_until
from tests.nginx.conftest import Script, StartNginx, StartSocketNode
from tests.nginx.http2 import Http2Stream
from tests.wire.parser import StrictParser

EVENT_STREAM = "text/event-stream"
PATHS = [
    "/channels/main/events?topic=a",
    "/.well-known/mercure?topic=a",
    "/api/stream/facilities/fac_001",
    "/api/stream/facilities/region?lat=6.5&lon=3.4&radius=10",
    "/api/v1/prices/stream?items=4151",
    "/stream/updates?companyId=7",
    "/api/v1/stream/events?token=t",
    "/api/v1/jobs/7/events",
]
NO_ONE = {"code": "unavailable", "reason": "no node answers"}
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n\r\n"


def silence_ms(milliseconds: int) -> dict[str, str]:
    """The change by which a node that is silent for so long is an outage, instead of 75 s."""
    return {"proxy_read_timeout 75s;": f"proxy_read_timeout {milliseconds}ms;"}


def check_told_to_come_back(status: int, headers: dict[str, str], body: bytes, code: str = "unavailable") -> int:
    """The short stream of contract 9, as this server's own; the milliseconds after which it asks the client back."""
    assert status == 200
    assert headers["content-type"] == EVENT_STREAM
    assert headers["cache-control"] == "no-store"
    parser = StrictParser()
    [event] = parser.feed(body)
    facts = json.loads(event.data)
    assert (event.type, facts["code"], facts["reconnect"]) == (code, code, True)
    assert event.last_event_id == "" and not parser.pending
    assert parser.retry_ms is not None
    return parser.retry_ms


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.fault
def test_an_event_source_gets_a_stream_that_asks_it_back(
    nginx: StartNginx, tmp_path: Path, path: str, seed: int
) -> None:
    """FLT-30: nobody listens (502), on one address or several. Anything but 200 would end a native EventSource for
    ever.
    """
    nobody = [f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}", f"unix:{tmp_path}/nobody.sock"]
    rng = random.Random(seed)
    front = nginx(*rng.sample(nobody, rng.randrange(1, 4)))
    retry_ms = check_told_to_come_back(*front.get(path, Accept=EVENT_STREAM, Last_Event_ID="a-1"))
    assert 2000 <= retry_ms <= 9900
    with Http2Stream(front, path) as stream:
        assert [event.type for event in stream.wait_end()] == ["unavailable"]


def test_no_two_are_asked_back_at_the_same_time(nginx: StartNginx) -> None:
    """9.6: spread evenly over eight seconds, also for clients of one address in one moment."""
    front = nginx(f"127.0.0.1:{free_port()}", changes={"rate=50r/s": "rate=10000r/s"})
    delays = [check_told_to_come_back(*front.get(PATHS[0], Accept=EVENT_STREAM)) for _ in range(400)]
    assert len(set(delays)) > 70  # of 80; evenly drawn, 79 are to be expected
    seconds = [sum(delay // 1000 == second for delay in delays) for second in range(2, 10)]
    assert sum(seconds) == 400
    assert min(seconds) > 20 and max(seconds) < 90  # 50 each are to be expected, give or take seven


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", [*PATHS, "/health"])
def test_everybody_else_gets_the_status(nginx: StartNginx, path: str, method: str) -> None:
    """9.2: 502 with Retry-After, in the form of the node's own refusals. A POST is never an EventSource's."""
    front = nginx(f"127.0.0.1:{free_port()}")
    for accept in ("*/*", "application/json", *([EVENT_STREAM] if method == "POST" else [])):
        status, headers, body = front.request(method, path, Accept=accept)
        assert (status, json.loads(body)) == (502, NO_ONE)
        assert headers["content-type"] == "application/json"
        assert headers["cache-control"] == "no-store"
        assert 2 <= int(headers["retry-after"]) <= 9


@pytest.mark.parametrize("kind", ["silent", "falls silent", "hangs up", "breaks off"])
@pytest.mark.fault
def test_a_node_that_accepts_and_does_not_answer_is_an_outage_too(
    scripted: Script, nginx: StartNginx, kind: str, seed: int
) -> None:
    """502 and 504: a process that stands still, dies, or does either anywhere in the head of its answer."""
    rng = random.Random(seed)
    parts = [ANSWER[: rng.randrange(1, len(ANSWER))] for _ in range(20)]
    answers: dict[str, list[bytes | None]] = {
        "silent": [HOLD] * 20,
        "falls silent": [part + HOLD for part in parts],
        "hangs up": [None] * 20,
        "breaks off": [*parts],
    }
    node: Scripted = scripted(*answers[kind])
    front = nginx(f"127.0.0.1:{node.port}", changes=silence_ms(300 if "silent" in kind else 5000))
    check_told_to_come_back(*front.get(PATHS[0], Accept=EVENT_STREAM))
    status, _, body = front.request("POST", PATHS[0], "x", Accept="*/*")
    assert (status, json.loads(body)) == (504 if "silent" in kind else 502, NO_ONE)


@pytest.mark.fault
def test_a_node_that_stands_still_is_an_outage_until_it_goes_on(
    socket_node: StartSocketNode, nginx: StartNginx, seed: int
) -> None:
    """FLT-17 from outside: the kernel accepts for a stopped process; nobody hangs for ever, nothing is stuck after.
    nginx may hold connections to the node then that were of use before, or none.
    """
    rng = random.Random(seed)
    node = socket_node()
    front = nginx(node, changes=silence_ms(2000))
    for _ in range(rng.randrange(4)):
        assert front.get("/health")[0] == 200
    os.kill(node.pid, signal.SIGSTOP)
    try:
        for path in rng.sample((PATHS[0], "/health"), 2):
            began = time.monotonic()
            if path == "/health":
                assert front.get(path)[0] == 504
            else:
                check_told_to_come_back(*front.get(path, Accept=EVENT_STREAM))
            assert time.monotonic() - began < 2 + BUSY_SECONDS
    finally:
        os.kill(node.pid, signal.SIGCONT)
    healed = time.monotonic()
    with front.stream(PATHS[0]) as stream:
        assert stream.next_event().type == "hello"
        front.publish("a", "on")
        assert stream.next_event().data == "on"
    assert front.get("/ready")[0] == 200
    assert time.monotonic() - healed < RESUMED_SECONDS


@pytest.mark.fault
def test_the_next_node_is_asked_where_one_is_away(socket_node: StartSocketNode, nginx: StartNginx, seed: int) -> None:
    """A publish that could not be sent is sent to another node; who asked for a stream notices nothing."""
    rng = random.Random(seed)
    node = socket_node()
    away = [f"127.0.0.1:{free_port()}", f"unix:{front_less(node.settings['socket'])}", f"127.0.0.1:{free_port()}"]
    nodes: list[Node | str] = [node, *rng.sample(away, rng.randrange(1, 4))]
    front = nginx(*rng.sample(nodes, len(nodes)))
    for number in range(30):
        front.publish("a", str(number))
        with front.stream(PATHS[0]) as stream:
            assert stream.next_event().type == "hello"


def front_less(path: object) -> str:
    """A Unix socket that is not there."""
    return f"{path}-away"


@pytest.mark.fault
def test_a_publish_that_may_have_arrived_is_not_sent_again(scripted: Script, nginx: StartNginx, seed: int) -> None:
    """5.1: the publisher tries again by its key; nginx, which does not know of keys, must not. The node dies before its
    answer or anywhere in its head.
    """
    part = ANSWER[: random.Random(seed).randrange(len(ANSWER))] or None
    first, second = scripted(part), scripted(part)
    front = nginx(f"127.0.0.1:{first.port}", f"127.0.0.1:{second.port}")
    assert front.request("POST", PATHS[0], "x")[0] == 502
    assert len(first.requests) + len(second.requests) == 1


def test_pages_of_other_origins_are_asked_back_too(nginx: StartNginx) -> None:
    """X01: without the header their EventSource may not even read the 200. Only exact origins of the list get it."""
    origins = {'#"https://app.example" "https://app.example";': '"https://app.example" "https://app.example";'}
    front = nginx(f"127.0.0.1:{free_port()}", changes=origins)
    for accept in (EVENT_STREAM, "*/*"):
        headers = front.get(PATHS[0], Accept=accept, Origin="https://app.example")[1]
        assert headers["access-control-allow-origin"] == "https://app.example"
        assert headers["access-control-allow-credentials"] == "true"
        assert "Origin" in headers["vary"]
        for origin in ("https://evil.example", "https://app.example.evil.com", "http://app.example", "null", ""):
            headers = front.get(PATHS[0], Accept=accept, Origin=origin)[1]
            assert not [name for name in headers if name.startswith("access-control")], origin
            assert "Origin" in headers["vary"]


@pytest.mark.fault
def test_an_nginx_out_of_connections_asks_back_as_well(
    socket_node: StartSocketNode, nginx: StartNginx, tmp_path: Path, seed: int
) -> None:
    """H05: it says 500 then, which would be final. Those that have a stream keep it. Its own message would hold the
    query; the access log tells it from an outage of the nodes.
    """
    rng = random.Random(seed)
    room, crowd = rng.randrange(20, 24), rng.randrange(40, 50)  # curl takes 50 at once
    front = nginx(socket_node(), changes={"worker_connections 4000;": f"worker_connections {room};"})
    address = f"{front.url}/channels/main/events?topic=t[1-{crowd}]&authorization=CANARY"
    command = ["curl", "-s", "-N", "-Z", "--http2", "--max-time", "30", "--cacert", str(front.certificate.chain)]
    with subprocess.Popen(
        [*command, "-H", "Accept: text/event-stream", "-o", f"{tmp_path}/got-#1", address],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as curl:
        try:
            wait_until(lambda: len(told(tmp_path)) == crowd, 20, "an answer for each")
        finally:
            curl.terminate()
    got = told(tmp_path)
    asked_back = [code for code in got if code == "unavailable"]
    assert got.count("hello") >= 10 and len(asked_back) >= 10
    assert got.count("hello") + len(asked_back) == crowd
    assert "CANARY" not in front.errors()
    assert front.stop() == 0
    refused = [line for line in front.access() if line["refused"]]
    assert len(refused) == len(asked_back)
    assert {(line["refused"], line["node_status"]) for line in refused} == {("unavailable", "-")}


def told(folder: Path) -> list[str]:
    """The first event of each stream that has one so far."""
    texts = [path.read_text() for path in folder.glob("got-*")]
    return [text.split("event: ")[1].split("\n")[0] for text in texts if "\n\n" in text.partition("event: ")[2]]


def test_the_access_log_tells_an_outage_from_an_answer(nginx: StartNginx) -> None:
    """`status` is 200 for an EventSource that was asked back; `refused` is what an alert looks at."""
    address = f"127.0.0.1:{free_port()}"
    front = nginx(address)
    for accept in (EVENT_STREAM, "*/*"):
        front.get(PATHS[0], Accept=accept)
    assert front.stop() == 0
    one, other = sorted(front.access(), key=lambda line: int(line["status"]))  # two workers wrote them
    assert (one["status"], other["status"]) == (200, 502)
    for line in (one, other):
        assert (line["refused"], line["node_status"], line["node"]) == ("unavailable", "502", address)
        assert (line["method"], line["path"], line["address"]) == ("GET", "/channels/main/events", "127.0.0.1")
