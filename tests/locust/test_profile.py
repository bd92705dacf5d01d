"""The headless profile: 500 users against a real server, and a few against servers that lose, repeat or delay."""

from __future__ import annotations

import http.server
import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.harness.process import ROOT


def run_profile(*options: str) -> tuple[int, str]:
    """Exit code and output of the profile."""
    command = [sys.executable, "-m", "benchmarks.locust.profile", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout + done.stderr


def reconnects(text: str) -> int:
    """How often readers came back, as the profile says."""
    figures = next(line for line in text.splitlines() if " readers, " in line)
    return int(figures.split(" reconnects")[0].split(", ")[-1])


def test_five_hundred_users_lose_nothing_and_wait_for_nothing() -> None:
    """Every reader reconnects and resumes on the way; no event is lost, repeated, or late."""
    brisk = ["--seconds", "10", "--spawn-rate", "250", "--publish-rate", "2", "--max-age-seconds", "5"]
    code, text = run_profile(*brisk, "--min-events", "30000", "--max-p95-ms", "2000")
    assert code == 0, text[-4000:]
    assert "\n490 readers, " in text
    assert reconnects(text) >= 400


# Tenants are registered first; a job's streams have a maximum age of their own.
@pytest.mark.parametrize(
    ("of", "topics", "seconds", "returns"),
    [
        ("facilities", 1, 10, 50),
        ("prices", 3, 10, 50),
        ("monitors", 4, 12, 50),
        ("jobs", 3, 10, 0),
        ("companies", 20, 10, 50),
    ],
)
def test_the_crowd_of_an_application_loses_nothing(of: str, topics: int, seconds: int, returns: int) -> None:
    """E18, F11, C7: a hundred streams, as their own load tests have it; most come back on the way."""
    crowd = ["--of", of, "--topics", str(topics), "--users", "110", "--publish-rate", "4", "--min-events", "300"]
    code, text = run_profile(*crowd, "--seconds", str(seconds), "--max-age-seconds", "2", "--max-p95-ms", "2000")
    assert code == 0, text[-4000:]
    assert "\n100 readers, " in text
    assert reconnects(text) >= returns


Fault = Callable[[int], list[int]]
FAULTS: dict[str, tuple[Fault, str]] = {
    "loses": (lambda number: [] if number == 5 else [number], "events were lost"),
    "loses the end": (lambda number: [] if number >= 5 else [number], "events were lost"),
    "repeats": (lambda number: [number, number] if number == 5 else [number], "events were lost"),
    "delays": (lambda number: time.sleep(0.4) or [number], "latency"),  # type: ignore[func-returns-value]
    "none": (lambda number: [number], ""),
}


class Mutant(http.server.ThreadingHTTPServer):
    """A small event server with a fault on every stream."""

    daemon_threads = True

    def __init__(self, fault: Fault) -> None:
        super().__init__(("127.0.0.1", 0), Exchange)
        self.fault = fault
        self.queues: list[queue.Queue[str]] = []


class Exchange(http.server.BaseHTTPRequestHandler):
    """Publish and subscribe, nothing else."""

    protocol_version = "HTTP/1.1"
    server: Mutant

    def do_POST(self) -> None:
        data = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["data"]
        for one in self.server.queues:
            one.put(data)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        events: queue.Queue[str] = queue.Queue()
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.wfile.write(b"event: hello\ndata: {}\n\n")
        self.server.queues.append(events)
        seen: list[str] = []
        while True:
            seen.append(events.get())
            for number in self.server.fault(len(seen) - 1):
                self.wfile.write(f"data: {seen[number]}\n\n".encode())

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Silence."""


@pytest.fixture
def mutant(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a server with the fault of that name."""
    server = Mutant(FAULTS[request.param][0])
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("mutant", "words"), [(name, words) for name, (_, words) in FAULTS.items()], indirect=["mutant"], ids=list(FAULTS)
)
def test_the_profile_fails_where_the_server_does(mutant: str, words: str) -> None:
    """The negative control: each fault is found and named, and a server without one passes."""
    options = ["--users", "4", "--publishers", "1", "--publish-rate", "25", "--seconds", "3", "--grace-seconds", "1"]
    code, text = run_profile("--host", mutant, *options)
    assert code == (1 if words else 0) and words in text, text[-3000:]


def test_the_profile_fails_where_nobody_answers() -> None:
    """A server that refuses every stream, or is not there, is a failed run."""
    code, text = run_profile("--host", "http://127.0.0.1:9", "--users", "4", "--publishers", "1", "--seconds", "2")
    assert code == 1 and "errors" in text and "0 events arrived" in text, text[-3000:]
