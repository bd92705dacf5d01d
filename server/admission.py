"""Admission: who may hold how many connections, and how fast new ones may come.

Owns the limits in all, per address, per token subject, and the rate of new connections. It refuses, and never evicts
one that is connected. Must never know of sockets or requests.

Invariants: the counts equal the readers held; a holder that holds nothing is forgotten, so a rotating address can't
grow the tables. Cost: two dictionary look-ups per connection; a `Holder` per distinct address, shared by its readers.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from functools import lru_cache

from server.endings import DRAINING, OVERLOADED, RATE_LIMITED, TOO_MANY, Ending


class Holder:
    """Someone who holds connections."""

    __slots__ = ("held", "key")

    def __init__(self, key: str) -> None:
        self.key = key
        self.held = 0


@lru_cache(4_096)
def address_key(remote: str) -> str:
    """What counts as one address: an IPv4 address, or an IPv6 network of 64 bits (a host may use all of it)."""
    if ":" not in remote:
        return remote
    try:
        address = ipaddress.IPv6Address(remote.partition("%")[0])
    except ValueError:
        return remote
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))


class Admission:
    """Limits of 0 mean none, but for `max_connections`, which the start-up derives from the file limit."""

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        max_connections: int,
        per_address: int = 0,
        per_subject: int = 0,
        opens_per_second: float = 0.0,
        opens_burst: int = 1,
    ) -> None:
        self._clock = clock
        self.max_connections = max_connections
        self._per_address = per_address
        self._per_subject = per_subject
        self._opens_per_second = opens_per_second
        self._opens_burst = opens_burst
        self._allowance = float(opens_burst)
        self._refilled = clock()
        self._addresses: dict[str, Holder] = {}
        self._subjects: dict[str, Holder] = {}
        self.held = 0
        self.draining = False
        self.refused: dict[str, int] = {}

    def refusal(self, remote: str, subject: str) -> Ending | None:
        """Why a new connection is refused now, or None. Counts the refusal."""
        ending = self._limit(remote, subject)
        if ending is not None:
            self.refused[ending.code] = self.refused.get(ending.code, 0) + 1
        return ending

    def _limit(self, remote: str, subject: str) -> Ending | None:
        if self.draining:
            return DRAINING
        if self.held >= self.max_connections:
            return OVERLOADED
        if self._per_address and self._held(self._addresses, address_key(remote)) >= self._per_address:
            return TOO_MANY
        if self._per_subject and subject and self._held(self._subjects, subject) >= self._per_subject:
            return TOO_MANY
        return RATE_LIMITED if self._opens_per_second and not self._take() else None

    @staticmethod
    def _held(holders: dict[str, Holder], key: str) -> int:
        holder = holders.get(key)
        return holder.held if holder else 0

    def _take(self) -> bool:
        now = self._clock()
        self._allowance = min(self._opens_burst, self._allowance + (now - self._refilled) * self._opens_per_second)
        self._refilled = now
        if self._allowance < 1:
            return False
        self._allowance -= 1
        return True

    def enter(self, remote: str, subject: str) -> tuple[Holder, Holder | None]:
        """Count a new connection; what `leave` wants back."""
        self.held += 1
        address = self._count(self._addresses, address_key(remote))
        return address, self._count(self._subjects, subject) if subject else None

    @staticmethod
    def _count(holders: dict[str, Holder], key: str) -> Holder:
        holder = holders.get(key)
        if holder is None:
            holder = holders[key] = Holder(key)
        holder.held += 1
        return holder

    def leave(self, address: Holder, subject: Holder | None) -> None:
        """Count a connection that ended."""
        self.held -= 1
        self._discount(self._addresses, address)
        if subject is not None:
            self._discount(self._subjects, subject)

    @staticmethod
    def _discount(holders: dict[str, Holder], holder: Holder) -> None:
        holder.held -= 1
        if not holder.held:
            del holders[holder.key]

    @property
    def addresses(self) -> int:
        """Distinct addresses that hold a connection."""
        return len(self._addresses)
