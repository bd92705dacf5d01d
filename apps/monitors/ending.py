"""Work that is not to be broken off in the middle.

Owns the wait: whoever is cancelled while it goes on is cancelled when it is done. For transactions: broken off amid a
statement, the cancelled task's own traceback keeps the statement and with it SQLite's lock for writing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

ResultT = TypeVar("ResultT")


async def to_the_end(work: Coroutine[Any, Any, ResultT]) -> ResultT:
    """What `work` gives or raises; it has to have limits of its own."""
    task = asyncio.get_running_loop().create_task(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        task.exception()  # looked at, for nobody else does
        raise cancelled
    return task.result()
