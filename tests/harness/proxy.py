"""A TCP proxy that can do what networks do: stand still, be slow, swallow one direction, reset, or lead elsewhere.

It runs in a thread with a loop of its own. A connection that stands still is not closed: nothing tells either side.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Awaitable, Callable

from tests.harness.process import free_port

PIECE = 65_536
_RESET = struct.pack("ii", 1, 0)


class Proxy:
    """Leads `port` to `target`. `hold` holds bytes up; `reset` ends connections with RST. `accepted` counts the
    connections to it, refused ones included. `bytes_a_second`: what all of them together carry from the target; 0: as
    much as they can.
    """

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self.target = target
        self.refusing = False
        self.accepted = 0
        self.bytes_a_second = 0
        self._free = 0.0  # when the slow link will have carried what it was given
        self._forward = self._backward = True
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()
        self._changed: asyncio.Condition
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._main, daemon=True)

    def start(self) -> Proxy:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def stop(self) -> None:
        self._do(self._end)
        self._thread.join(10)

    # --- what a network does

    def hold(self, *, forward: bool = True, backward: bool = True) -> None:
        """Hold bytes up: those to the target, those from it, or both. Connections stay, and new ones are accepted."""
        self._flow(not forward, not backward)

    def heal(self) -> None:
        """Let everything flow again; what was held up comes first."""
        self.refusing = False
        self._flow(True, True)

    def reset(self, *, refuse: bool = False) -> None:
        """End every connection with RST; with `refuse` also each new one, until `heal`."""
        self.refusing = refuse
        self._do(self._reset)

    def lead_to(self, target: int) -> None:
        """Lead new connections elsewhere, and end those that are there."""
        self.target = target
        self._do(self._reset)

    # --- inside

    def _do(self, work: Callable[[], Awaitable[None]]) -> None:
        asyncio.run_coroutine_threadsafe(_awaited(work), self._loop).result(10)

    def _flow(self, forward: bool, backward: bool) -> None:
        async def change() -> None:
            async with self._changed:
                self._forward, self._backward = forward, backward
                self._changed.notify_all()

        self._do(change)

    def _main(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        self._changed = asyncio.Condition()
        self._over = asyncio.Event()
        server = await asyncio.start_server(self._take, "127.0.0.1", self.port)
        self._ready.set()
        await self._over.wait()
        server.close()
        async with self._changed:  # who is held up ends with its connection
            self._forward = self._backward = True
            self._changed.notify_all()
        await self._reset()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        if tasks:
            await asyncio.wait(tasks, timeout=5)

    async def _end(self) -> None:
        self._over.set()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._writers.add(writer)
        try:
            if not self.refusing:
                await self._join(reader, writer)
        finally:
            await self._hang_up(writer)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            return
        self._writers.add(far_writer)
        ways = (self._carry(reader, far_writer, "_forward"), self._carry(far_reader, writer, "_backward"))
        try:
            await asyncio.gather(*ways)
        finally:
            self._abort(writer)
            await self._hang_up(far_writer)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: str) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(PIECE):
                async with self._changed:
                    await self._changed.wait_for(lambda: getattr(self, way))
                if self.bytes_a_second and way == "_backward":
                    await self._carry_slowly(len(data))
                writer.write(data)
                await writer.drain()
        self._abort(writer)

    async def _carry_slowly(self, size: int) -> None:
        now = self._loop.time()
        self._free = max(now, self._free) + size / self.bytes_a_second
        await asyncio.sleep(self._free - now)

    async def _reset(self) -> None:
        for writer in list(self._writers):
            self._abort(writer)

    async def _hang_up(self, writer: asyncio.StreamWriter) -> None:
        """Abort, and wait until its socket is closed, which it is in a later turn of the loop."""
        self._abort(writer)
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    def _abort(self, writer: asyncio.StreamWriter) -> None:
        self._writers.discard(writer)
        sock = writer.get_extra_info("socket")
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        writer.transport.abort()


async def _awaited(work: Callable[[], Awaitable[None]]) -> None:
    await work()
