"""The load test's EventSource client. (Nothing here imports Locust: it would patch the whole test process.)"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from benchmarks.locust.eventsource import EventSource, Message, Parser, unchunked
from tests.harness.process import wait_until

STREAM = (
    "retry: 50\nid: 1\nevent: hello\ndata: {}\n\n: hb\n\nid: 2\n\n"
    "id: 3\ndata: caf\u00e9\ndata:  two\n\nevent: t\n\ndata\n\nid: 4\ndata: cut"
).encode()


def parsed(parts: Iterator[bytes] | list[bytes]) -> tuple[list[tuple[str, str]], str, float]:
    parser = Parser()
    messages = [message for part in parts for message in parser.feed(part)]
    return [(message.type, message.data) for message in messages], parser.last_event_id, parser.retry_seconds


EXPECTED = ([("hello", "{}"), ("message", "caf\u00e9\n two"), ("message", "")], "3", 0.05)


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_a_stream_is_understood_in_pieces_of_any_size_and_with_any_line_end(end: bytes) -> None:
    stream = STREAM.replace(b"\n", end)
    for size in range(1, len(stream)):
        assert parsed([stream[i : i + size] for i in range(0, len(stream), size)]) == EXPECTED


def test_an_id_counts_only_once_its_block_is_complete() -> None:
    for cut in range(len(STREAM)):
        _, last_event_id, _ = parsed([STREAM[:cut]])
        blocks = STREAM[:cut].split(b"\n\n")[:-1]
        assert last_event_id == ([b.split(b"id: ")[1][:1].decode() for b in blocks if b"id: " in b] or [""])[-1]


def test_chunks_are_joined_wherever_they_are_cut() -> None:
    framed = b"5\r\nhello\r\n1;a=b\r\n \r\nA\r\n0123\r\n6789\r\n0\r\n\r\n"
    for size in range(1, len(framed)):
        assert (
            b"".join(unchunked(iter([framed[i : i + size] for i in range(0, len(framed), size)])))
            == b"hello 0123\r\n6789"
        )


class Record:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.ends: list[Exception | None] = []
        self.statuses: list[int] = []

    def message(self, message: Message, received: float) -> None:
        assert abs(time.time() - received) < 5
        self.messages.append(message)

    def ended(self, error: Exception | None) -> None:
        self.ends.append(error)

    def refused(self, status: int) -> None:
        self.statuses.append(status)


def test_a_client_comes_back_after_the_retry_with_its_last_id_until_it_is_refused() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
    answers = [
        head + b"retry: 30\nid: a-1\ndata: x\n\nid: a-2\n",
        b"",
        head + b"data: y\n\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
    ]
    requests: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        record = Record()
        source = EventSource(
            f"http://127.0.0.1:{listening.getsockname()[1]}/s?topic=a", record, {"Authorization": "Bearer t"}
        )
        thread = threading.Thread(target=source.run)
        thread.start()
        for answer in answers:
            connection, _ = listening.accept()
            requests.append(connection.recv(65536))
            connection.sendall(answer)
            connection.close()
        thread.join(10)
    assert [message.data for message in record.messages] == ["x", "y"]
    assert record.statuses == [204] and len(record.ends) == 3
    assert requests[0].startswith(b"GET /s?topic=a HTTP/1.1\r\n") and b"Authorization: Bearer t\r\n" in requests[0]
    assert [b"Last-Event-ID: a-1\r\n" in text for text in requests] == [False, True, True, True]


def test_closing_ends_a_client_that_waits_for_events() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        record = Record()
        source = EventSource(f"http://127.0.0.1:{listening.getsockname()[1]}/", record, {})
        thread = threading.Thread(target=source.run)
        thread.start()
        connection, _ = listening.accept()
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: x\n\n")
        wait_until(lambda: record.messages)
        source.close()
        thread.join(5)
        assert not thread.is_alive() and not record.ends
        connection.close()
