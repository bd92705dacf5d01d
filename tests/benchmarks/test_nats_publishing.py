"""The load generator publishes to a real NATS server and counts what it took; the companies' run goes that way."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from nats.aio.client import Client

from benchmarks.lab import Lab
from benchmarks.scenarios import company_streams
from benchmarks.servers import NatsCore, StartError
from benchmarks.storm import LOSSES, Programs
from tests.benchmarks.conftest import Script, Storm
from tests.harness.nats import NatsServer

SUBJECT = "metrics.calculated"


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path, lines="max_payload: 1024", jetstream=False).start()
    yield server
    server.stop()


class Witness(threading.Thread):
    """Receives so many messages of the subject, on a connection of its own. `reads` is set once it does."""

    def __init__(self, url: str, count: int) -> None:
        super().__init__(daemon=True)
        self.url, self.count = url, count
        self.bodies: list[bytes] = []
        self.reads = threading.Event()

    def run(self) -> None:
        asyncio.run(self._receive())

    async def _receive(self) -> None:
        client = Client()
        await client.connect(self.url, allow_reconnect=False)
        subscription = await client.subscribe(SUBJECT)
        await client.flush()
        self.reads.set()
        self.bodies = [(await subscription.next_msg(20)).data for _ in range(self.count)]
        await client.close()


def losses(report: dict[str, int]) -> dict[str, int]:
    return {name: report[name] for name in LOSSES if report[name]}


def test_every_message_is_at_the_server_once_with_its_text_around_it(
    storm: Storm, script: Script, nats: NatsServer
) -> None:
    witness = Witness(nats.url, 60)
    witness.start()
    assert witness.reads.wait(20)
    options = {"publish_subject": SUBJECT, "groups": 3, "prefix": '{"of":"{g}","mark":"', "suffix": '"}'}
    report = storm(script(), readers=0, count=60, publishers=4, publish_to=f"127.0.0.1:{nats.port}", **options)
    witness.join(20)
    assert (losses(report), report["accepted"]) == ({}, 60)
    numbers = [int(body.split(b".")[1][:8], 16) for body in witness.bodies]
    assert sorted(numbers) == list(range(60))
    assert all(
        body.startswith(b'{"of":"%d","mark":"*' % (n % 3)) for n, body in zip(numbers, witness.bodies, strict=True)
    )
    assert all(body.endswith(b'-"}') for body in witness.bodies)


def test_what_the_server_takes_and_no_stream_gets_is_missed(storm: Storm, script: Script, nats: NatsServer) -> None:
    options = {"publish_subject": SUBJECT, "linger_seconds": 0.3}
    report = storm(script(), readers=2, count=5, publish_to=f"127.0.0.1:{nats.port}", **options)
    assert (losses(report), report["accepted"]) == ({"missed": 10}, 5)


def test_what_the_server_does_not_take_is_refused(storm: Storm, script: Script, nats: NatsServer) -> None:
    options = {"publish_subject": SUBJECT, "bytes": 2_000, "linger_seconds": 0.3}
    report = storm(script(), readers=2, count=5, publish_to=f"127.0.0.1:{nats.port}", **options)
    assert (losses(report), report["accepted"]) == ({"refused_events": 5}, 0)


@pytest.fixture
def lab(programs: Programs, tmp_path: Path) -> Lab:
    return Lab(tmp_path, programs, quick=True, repetitions=1, say=lambda _: None, cores=(None, None))


def test_the_companies_run_goes_from_nats_through_redis_to_every_stream(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C7: and what a stream gets in the measure is what the bridge made of a message."""
    monkeypatch.setattr(company_streams, "RATE", 200)
    [run] = company_streams.by_nats(lab, streams=2, seconds=1)
    assert (run.losses, run["accepted"], run["delivered"]) == ({}, 200, 400)
    assert 0 < run["latency_p50_ms"] <= run["latency_p95_ms"] <= run["latency_p99_ms"]


def test_the_companies_run_fails_where_messages_get_nowhere(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """C7: the figures are of messages and of nothing else."""
    monkeypatch.setattr(company_streams, "RATE", 200)
    monkeypatch.setattr(company_streams, "COMPANIES", 3)
    monkeypatch.setattr(company_streams, "SUBJECT", "orders.made")
    lab_storm = lab.storm
    monkeypatch.setattr(lab, "storm", lambda *words, **options: lab_storm(*words, **options | {"linger_seconds": 0.3}))
    [run] = company_streams.by_nats(lab, streams=1, seconds=1)
    assert run.losses == {"missed": 200}


def test_a_companies_run_without_nats_is_a_failure_and_says_so(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(_: NatsCore) -> list[str]:
        raise StartError("nats-server is not installed")

    monkeypatch.setattr(NatsCore, "command", absent)
    monkeypatch.setattr(company_streams, "by_http", lambda *_: [])
    outcome = company_streams.run(lab)
    assert not outcome.passed
    assert lab.trouble == [("ringcast", "nats-server is not installed")]
