"""Which Redis the Sentinels name as master: one answer for all connections of a node.

Owns the address that was named last, and the pools of connections that keep to it. Must never know what is asked of
Redis.

Invariant: as soon as one connection of the node is told of another master, those to the former one are cut, busy or
idle, in every pool, and none of them is given out again. A master that was deposed while it stood still, or was cut
off, goes on as one when it comes back, until a Sentinel reaches it. Were some connections still to it, the node would
append to two logs in turn, find each turned back from the other, and begin new epochs without end.
Cost: a comparison for each connection that is given out.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakSet

from redis.asyncio.sentinel import SentinelConnectionPool
from redis.exceptions import ConnectionError as NoConnection

Address = tuple[str, int]


class Masters:
    """What a node was told last. For one name of one group of Sentinels."""

    def __init__(self) -> None:
        self.address: Address | None = None
        self._pools: WeakSet[MasterPool] = WeakSet()

    def keep(self, pool: MasterPool) -> None:
        """Have its connections cut when the master is elsewhere."""
        self._pools.add(pool)

    def named(self, address: Address) -> None:
        """The Sentinels have said where the master is."""
        if address != self.address:
            self.address = address
            for pool in self._pools:
                pool.cut_others()


class MasterPool(SentinelConnectionPool):
    """Connections to the master that the Sentinels name. `masters` is the node's."""

    def __init__(self, *args: Any, masters: Masters, **options: Any) -> None:
        super().__init__(*args, **options)  # type: ignore[no-untyped-call]
        self.masters = masters
        masters.keep(self)

    async def get_master_address(self) -> Address:
        """Ask the Sentinels."""
        address: Address = await self.sentinel_manager.discover_master(self.service_name)
        self.master_address = address
        self.masters.named(address)
        return address

    async def ensure_connection(self, connection: Any) -> None:
        """A connection that may be given out. Raises redis-py's errors."""
        if self._is_elsewhere(connection):
            await connection.disconnect()
        await super().ensure_connection(connection)
        if self._is_elsewhere(connection):  # since a moment ago
            await connection.disconnect()
            raise NoConnection("the master is elsewhere by now")

    async def disconnect(self, inuse_connections: bool = True) -> None:
        """Close the connections to the master, and those to the Sentinels, which redis-py leaves open."""
        await super().disconnect(inuse_connections)
        if inuse_connections:
            for client in self.sentinel_manager.sentinels:
                await client.aclose()

    def cut_others(self) -> None:
        """End connections to where the master is not: who waits for an answer gets an error."""
        every: list[Any] = [*self._available_connections, *self._in_use_connections]
        for connection in every:
            if self._is_elsewhere(connection):
                connection._writer.transport.abort()

    def _is_elsewhere(self, connection: Any) -> bool:
        return connection.is_connected and (connection.host, connection.port) != self.masters.address
