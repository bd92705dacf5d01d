"""How often a Redis that is away is tried: about once a second for a whole node, whoever in it wants something.

Owns the time before which nobody tries to connect again, and the connections that keep to it. Must never know who asks
or for what.

Invariants: as long as every try succeeds nobody waits; after one that failed the next begins a second later at the
earliest, and until then each who wants a connection is refused at once, with the reason of that failure. A connection
that is there is never held up. The times vary, so that nodes which lost one Redis together do not come back together.
Cost: one comparison per connection that is made.

Tried and rejected: waits of its own for each (the tail, the tick, what is published). Each was patient, and together
they tried three times a second.
"""

from __future__ import annotations

import random
import time
from typing import Any

from server.relay.protocol import RelayUnavailable

TRY_SECONDS = 1.0  # between the beginnings of two tries, at least
SPREAD = 0.2  # of it, at random on top


class Patience:
    """For all connections of a node to one Redis."""

    def __init__(self) -> None:
        self._reason: str | None = None
        self._next = 0.0

    def begin(self) -> None:
        """Somebody wants to connect. Raises RelayUnavailable if it is too early to."""
        if self._reason is not None:
            if time.monotonic() < self._next:
                raise RelayUnavailable(self._reason)
            self._wait()

    def failed(self, reason: str) -> None:
        """A try did not succeed."""
        if self._reason is None:
            self._wait()
        self._reason = reason

    def succeeded(self) -> None:
        """Redis is there."""
        self._reason = None

    def _wait(self) -> None:
        self._next = time.monotonic() + TRY_SECONDS * (1 + SPREAD * random.random())


def patient(kind: Any, patience: Patience, errors: tuple[type[Exception], ...], reason_of: Any) -> Any:
    """That kind of connection, which is not made before it is time."""

    class Patient(kind):  # type: ignore[misc]
        async def connect(self) -> None:
            if self.is_connected:
                return
            patience.begin()
            try:
                await super().connect()
            except errors as error:
                patience.failed(reason_of(error))
                raise
            patience.succeeded()

    return Patient
