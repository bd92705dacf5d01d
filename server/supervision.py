"""Supervision: tasks that run as long as the process, and are started again when they die.

Owns the loop around such a task: a log line, a wait that doubles up to a bound, with jitter. Lasting tasks run under
it, or, like the renewal of keys, say by themselves when they die: none dies unnoticed. And how they end: by being
cancelled, or by a wait that a stop breaks off.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable

from server.logs import get_logger

FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 30.0
HEALTHY_SECONDS = 60.0  # a task that ran this long starts with the short wait again

# How often each task has died in this process.
died: dict[str, int] = {}

log = get_logger("supervision")


async def cancelled(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait for their end; again and again, for a library may swallow a cancellation."""
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=0.5)


async def rest(stopping: asyncio.Event, seconds: float) -> None:
    """Wait so long, but not beyond `stopping`."""
    try:
        async with asyncio.timeout(seconds):
            await stopping.wait()
    except TimeoutError:
        pass


async def supervise(name: str, work: Callable[[], Awaitable[None]]) -> None:
    """Run `work` again and again until cancelled or until it returns."""
    wait = FIRST_WAIT_SECONDS
    while True:
        began = time.monotonic()
        try:
            await work()
            return
        except Exception:
            died[name] = died.get(name, 0) + 1
            log.exception("task_died", task=name, restart_within_seconds=round(wait, 1))
        if time.monotonic() - began > HEALTHY_SECONDS:
            wait = FIRST_WAIT_SECONDS
        await asyncio.sleep(wait * (0.5 + random.random() / 2))
        wait = min(wait * 2, LONGEST_WAIT_SECONDS)
