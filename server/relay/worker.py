"""A thread that runs calls one after another, for work that would block the loop.

Owns one thread and the way results come back to the loop. Must never know what the calls do.

Invariants: calls run in the order they were given; each one's `done` runs once, on the loop, in that order, with its
result or its exception, also if the thread dies. A pool would not do: SQLite connections stay with their thread, and
one writer needs no locks.
Cost: one queue entry and one wake-up of the loop per call.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")
Done = Callable[[Any], None]


class WorkerStopped(Exception):
    """The thread ended before it ran the call."""


class Worker:
    """`on_death` is called on the loop if the thread ends unasked."""

    def __init__(
        self, name: str, loop: asyncio.AbstractEventLoop, on_death: Callable[[BaseException | None], None]
    ) -> None:
        self.alive = True
        self._loop = loop
        self._on_death = on_death
        self._calls: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._waiting: deque[Done] = deque()
        self._ended = asyncio.Event()
        # A daemon: a disk that does not answer must not keep the process from ending.
        self._thread = Thread(target=self._main, name=name, daemon=True)
        self._thread.start()

    def submit(self, call: Callable[[], T], done: Callable[[T | Exception], None]) -> None:
        """Run `call` in the thread, then `done` on the loop with its result or exception."""
        if not self.alive:
            self._loop.call_soon(done, WorkerStopped())
            return
        self._waiting.append(done)
        self._calls.put(call)

    async def run(self, call: Callable[[], T]) -> T:
        """Run `call` in the thread and return what it returns or raise what it raises."""
        future: asyncio.Future[T] = self._loop.create_future()

        def done(outcome: T | Exception) -> None:
            if future.done():
                return
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

        self.submit(call, done)
        return await future

    async def run_if_alive(self, call: Callable[[], object]) -> None:
        """Run `call` in the thread if there still is one, for closing what it opened."""
        with suppress(WorkerStopped):
            await self.run(call)

    async def stop(self) -> None:
        """Let the thread end after the calls it has."""
        self._calls.put(None)
        await self._ended.wait()
        self._thread.join()

    def _main(self) -> None:
        fault: BaseException | None = None
        asked = False
        try:
            while (call := self._calls.get()) is not None:
                self._loop.call_soon_threadsafe(self._finished, _outcome(call))
                del call
            asked = True
        except BaseException as error:
            fault = error
        with suppress(RuntimeError):  # The loop is closed: nobody is left to hear of it.
            self._loop.call_soon_threadsafe(self._thread_ended, asked, fault)

    def _finished(self, outcome: object) -> None:
        self._waiting.popleft()(outcome)

    def _thread_ended(self, asked: bool, fault: BaseException | None) -> None:
        self.alive = False
        self._ended.set()
        waiting, self._waiting = self._waiting, deque()
        for done in waiting:
            done(WorkerStopped())
        if not asked:
            self._on_death(fault)


def _outcome(call: Callable[[], object]) -> object:
    try:
        return call()
    except Exception as error:
        return error
