"""A server that does not keep the contract: a real node behind a proxy that spoils what its readers get.

Owns the ways to be wrong, each one small. Must know no checker: it is what the checker is tried on. Invariants: what is
not spoiled goes through unchanged and at once, in both directions; the proxy ends with its context, and with it each
connection. A way of spoiling knows events by their number, so all readers get the same wrong, over all their
connections, unless it says otherwise. Cost: two threads a connection.
"""

from __future__ import annotations

import contextlib
import json
import re
import select
import socket
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from tests.faults.witnesses import ELSEWHERE, TOPIC, Attempt
from tests.harness.process import free_port
from tests.harness.stream import Block, Stream

LAST_EVENT_ID = re.compile(rb"(Last-Event-ID: )[^\r]+", re.IGNORECASE)
LOOK_SECONDS = 0.05  # between looks whether a reader has gone
Spoil = Callable[[Block], list[Block]]


def number_of(block: Block) -> int:
    """The event's number; -1 if it is none."""
    return int(block.data or "") if block.type == "message" and block.data is not None else -1


def altered(block: Block, **fields: str) -> Block:
    return Block([(name, fields.get(name, value)) for name, value in block.fields])


def after(wire_id: str) -> str:
    """An id that is just behind this one."""
    epoch, _, position = wire_id.partition("-")
    return f"{epoch}-{int(position, 16) + 1:013x}"


def gap(first: Block | None, last: Block) -> Block:
    """A gap that declares what is behind the first and not behind the last."""
    borders = {"reason": "history", "from": first and first.id, "to": last.id}
    return Block([("event", "gap"), ("data", json.dumps(borders))])


# --- what is done to one event, wherever it comes


def faithful() -> Spoil:
    return lambda block: [block]


def drops(number: int = 12) -> Spoil:
    return lambda block: [] if number_of(block) == number else [block]


def doubles(number: int = 12) -> Spoil:
    return lambda block: [block, block] if number_of(block) == number else [block]


def publishes_twice(number: int = 12) -> Spoil:
    """The same event under another id: a key that was forgotten."""

    def spoil(block: Block) -> list[Block]:
        return [block, altered(block, id=after(block.id or ""))] if number_of(block) == number else [block]

    return spoil


def makes_up(number: int = 12) -> Spoil:
    def spoil(block: Block) -> list[Block]:
        made_up = [altered(block, id=after(block.id or ""), data="999999")] if number_of(block) == number else []
        return [block, *made_up]

    return spoil


def swaps(number: int = 12) -> Spoil:
    held: list[Block] = []

    def spoil(block: Block) -> list[Block]:
        if number_of(block) == number:
            held.append(block)
            return []
        behind = held.copy() if number_of(block) > number else []
        del held[: len(behind)]
        return [block, *behind]

    return spoil


def exchanges_numbers(first: int = 12, second: int = 13) -> Spoil:
    """Two events in an order that is not their publisher's, under ids that increase, for everybody."""
    other = {first: str(second), second: str(first)}

    def spoil(block: Block) -> list[Block]:
        number = number_of(block)
        return [altered(block, data=other[number]) if number in other else block]

    return spoil


def gives_another_id(number: int = 12) -> Spoil:
    """An id that increases, but is this reader's alone."""

    def spoil(block: Block) -> list[Block]:
        return [altered(block, id=after(block.id or "")) if number_of(block) == number else block]

    return spoil


def drops_and_tells(times: int, *, late: bool = False, first: int = 12, last: int = 14) -> Spoil:
    """Leaves some out and declares it so often, before the next event; or, if `late`, before the one behind that."""
    lost: list[Block] = []
    until = last + 1 + late

    def spoil(block: Block) -> list[Block]:
        number = number_of(block)
        if first <= number <= last:
            lost.append(block)
            return []
        if lost and number >= until:
            told = [gap(None, lost[-1])] * times
            lost.clear()
            return [*told, block]
        return [block]

    return spoil


def tells_of_nothing(number: int = 22) -> Spoil:
    return lambda block: [gap(None, block), block] if number_of(block) == number else [block]


def tells_of_nothing_beside_a_hole() -> Spoil:
    leaves_out, tells = drops_and_tells(1), tells_of_nothing()
    return lambda block: [told for kept in leaves_out(block) for told in tells(kept)]


def hides_gaps() -> Spoil:
    return lambda block: [] if block.type == "gap" else [block]


# --- the proxy


class Mutant:
    """The node on `target`, spoiled. `spoil` makes what is done on one connection; `spoiled_connections` is how many of
    the first are, if not all. `selects_more` adds the other topic to what readers ask for; `forgets_a_cursor` asks the
    node with one of another epoch for the first who comes back; `keeps_connections` does not tell it of those that go.
    `hold` lets nothing through to readers until `heal`.
    """

    def __init__(
        self,
        target: int,
        spoil: Callable[[], Spoil] = faithful,
        *,
        spoiled_connections: int | None = None,
        selects_more: bool = False,
        forgets_a_cursor: bool = False,
        keeps_connections: bool = False,
    ) -> None:
        self.target, self.spoil, self.spoiled_connections = target, spoil, spoiled_connections
        self.selects_more, self.forgets_a_cursor = selects_more, forgets_a_cursor
        self.keeps_connections = keeps_connections
        self.flowing = threading.Event()
        self.flowing.set()
        self.leaving = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", free_port()))
        self.port: int = self.listener.getsockname()[1]
        self.threads: list[threading.Thread] = []
        self.kept: list[Stream] = []
        self.readers = 0

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leaving.set()
        self.flowing.set()
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in self.threads:
            thread.join(10)
        for stream in self.kept:
            stream.close()

    def hold(self) -> None:
        self.flowing.clear()

    def heal(self) -> None:
        self.flowing.set()

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        self.threads.append(threading.Thread(target=work, args=arguments, daemon=True))
        self.threads[-1].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._start(self._serve, self.listener.accept()[0])

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError, AssertionError):
            head = b""
            while b"\r\n\r\n" not in head:
                piece = client.recv(65_536)
                if not piece:
                    return
                head += piece
            if head.startswith(b"GET /channels/"):
                self._read(client, head)
            else:
                self._carry(client, head)

    def _carry(self, client: socket.socket, head: bytes) -> None:
        """What is no stream goes to and fro as it is."""
        with socket.create_connection(("127.0.0.1", self.target), timeout=5) as node:
            for side in (client, node):
                side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            node.sendall(head)
            while not self.leaving.is_set():
                for readable in select.select([client, node], [], [], LOOK_SECONDS)[0]:
                    piece = readable.recv(65_536)
                    if not piece:
                        return
                    (node if readable is client else client).sendall(piece)

    def _read(self, client: socket.socket, head: bytes) -> None:
        if self.selects_more:
            head = head.replace(f"topic={TOPIC} ".encode(), f"topic={TOPIC}&topic={ELSEWHERE} ".encode())
        self.readers += 1
        spoiled = self.spoiled_connections is None or self.readers <= self.spoiled_connections
        spoil = self.spoil() if spoiled else faithful()
        if self.forgets_a_cursor:
            head, count = LAST_EVENT_ID.subn(rb"\g<1>aaaaaa-0000000000000", head)
            self.forgets_a_cursor = count == 0
        stream = Attempt(self.target, "", request=head)
        try:
            client.sendall(stream.head + b"\r\n\r\n")
            for block in self._blocks(client, stream):
                self.flowing.wait()
                for given in spoil(block):
                    text = "".join(f"{name}:{value and ' '}{value}\n" for name, value in given.fields).encode() + b"\n"
                    client.sendall(b"%x\r\n%b\r\n" % (len(text), text))
        finally:
            if self.keeps_connections:
                self.kept.append(stream)
            else:
                stream.close()

    def _blocks(self, client: socket.socket, stream: Stream) -> Iterator[Block]:
        """What the node says, until it or the reader ends the connection."""
        while not self.leaving.is_set() and not select.select([client], [], [], 0)[0]:
            try:
                block = stream.next_block(LOOK_SECONDS)
            except AssertionError:  # nothing was said meanwhile
                continue
            if block is None:
                return
            yield block
