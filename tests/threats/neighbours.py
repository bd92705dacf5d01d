"""Well-behaved readers beside an attack: they must get every event, in order and in time.

`Neighbours` publishes numbered events on a kept-alive connection that is opened before the attack, and reads them on a
few streams. On leaving the `with` block it checks what the contract promises: no event lost, repeated or out of order,
no gap declared, latency as without the attack.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from types import TracebackType

from tests.harness.process import wait_until
from tests.harness.stream import Stream

TOPIC = "neighbours"


class Neighbours:
    """`readers` streams and a publisher of one event every `every` seconds. `latencies` are in seconds.

    With `page_first` the publisher's connection has served a plain page before, so that other code has it.
    """

    def __init__(
        self,
        port: int,
        *,
        readers: int = 3,
        every: float = 0.02,
        p99_seconds: float = 1.0,
        page_first: bool = False,
        **headers: str,
    ) -> None:
        self.port = port
        self.every = every
        self.p99_seconds = p99_seconds
        self.headers = headers
        self.latencies: list[float] = []
        self.published = 0
        self.failures: list[str] = []
        self.seen = [0] * readers
        self.leaving = threading.Event()
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        if page_first:
            self.connection.request("GET", "/health")
            self.connection.getresponse().read()
        path = f"/channels/main/events?topic={TOPIC}"
        self.streams = [Stream(port, path, seconds=10, **headers) for _ in range(readers)]
        for stream in self.streams:
            assert stream.next_event().type == "hello"
        self.threads = [threading.Thread(target=self._read, args=(number,), daemon=True) for number in range(readers)]
        self.threads.append(threading.Thread(target=self._publish, daemon=True))

    def __enter__(self) -> Neighbours:
        self.publish()
        for thread in self.threads:
            thread.start()
        return self

    def publish(self, *, last: bool = False) -> None:
        """Publish the next event; it must be accepted."""
        body = json.dumps({"topic": TOPIC, "data": {"number": self.published, "last": last, "sent": time.monotonic()}})
        headers = {"Content-Type": "application/json"} | {k.replace("_", "-"): v for k, v in self.headers.items()}
        self.connection.request("POST", "/channels/main/events", body, headers)
        answer = self.connection.getresponse()
        text = answer.read()
        assert answer.status == 200, (answer.status, text)
        self.published += 1

    def _publish(self) -> None:
        try:
            while not self.leaving.wait(self.every):
                self.publish()
        except (AssertionError, OSError, http.client.HTTPException) as error:
            self.failures.append(f"publisher: {error!r}")

    def _read(self, number: int) -> None:
        try:
            last = False
            while not last:
                block = self.streams[number].next_event()
                last = self._take(number, block.type, block.data or "")
        except (AssertionError, OSError) as error:
            self.failures.append(f"reader {number}: {error!r}")

    def _take(self, number: int, kind: str, data: str) -> bool:
        """Check one event; True if it is the last."""
        assert kind == "message", f"{kind}: {data}"
        event = json.loads(data)
        assert event["number"] == self.seen[number], f"event {event['number']} came, {self.seen[number]} was due"
        self.seen[number] += 1
        self.latencies.append(time.monotonic() - event["sent"])
        return bool(event["last"])

    def wait_for(self, more: int, seconds: float = 10) -> None:
        """Until every reader has got `more` further events, or one of them failed."""
        goal = self.published + more
        wait_until(
            lambda: self.failures or min(self.seen) >= goal, seconds, f"{more} further events at every neighbour"
        )

    def p99(self) -> float:
        """The latency that 99 % of the deliveries kept."""
        return sorted(self.latencies)[int(len(self.latencies) * 0.99)]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leaving.set()
        self.threads[-1].join(10)
        if not self.failures and kind is None:
            self.publish(last=True)
        for thread in self.threads[:-1]:
            thread.join(10)
        for stream in self.streams:
            stream.close()
        self.connection.close()
        if kind is None:
            self._check()

    def _check(self) -> None:
        assert not self.failures, self.failures
        assert self.seen == [self.published] * len(self.seen)
        assert self.p99() < self.p99_seconds, f"p99 was {self.p99() * 1000:.0f} ms"
