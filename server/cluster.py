"""The cluster as this node sees it: who else is there and what they hold, and revocations, which concern all.

Owns this node's name, the facts that it gives of itself, the sum over all nodes, and what a revocation does here. Over
a relay that nobody shares the cluster is this node alone. Must never know of Redis (the relay's board does).

Invariants: a node that died is in the sum for at most `PRESENCE_SECONDS`; a revocation closes the streams that it
concerns, on every node, within two ticks of the relay, and new requests are refused from the same moment on.
Cost: one registration every `REGISTER_SECONDS`; a revocation looks at every reader once.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable
from typing import Any

import ujson

from server.broadcaster import Broadcaster
from server.endings import REVOKED
from server.logs import get_logger
from server.relay.protocol import Board, RelayUnavailable
from server.revocations import KINDS, TOPIC, Revocations, mark_of

REGISTER_SECONDS = 5.0
PRESENCE_SECONDS = 15.0
SUMMED = ("by_channel", "by_tenant", "by_channel_and_tenant")

log = get_logger("cluster")


class Cluster:
    """`facts` gives what this node says of itself: `connections`, `by_channel`, `by_tenant` and whatever else."""

    def __init__(
        self,
        board: Board | None,
        broadcaster: Broadcaster,
        revocations: Revocations,
        facts: Callable[[], dict[str, Any]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = f"{socket.gethostname()}-{os.getpid()}-{os.urandom(3).hex()}"
        self._board = board
        self._broadcaster = broadcaster
        self._revocations = revocations
        self._facts = facts
        self._clock = clock
        self._started = clock()
        if board is not None:
            board.on_notice = self.noticed

    async def run(self) -> None:
        """Say every few seconds that this node is there."""
        if self._board is None:
            return
        while True:
            try:
                await self._board.register(self.name, ujson.dumps(self._own()), PRESENCE_SECONDS)
            except RelayUnavailable as error:
                log.warning("not_registered", reason=error.reason)
            await asyncio.sleep(REGISTER_SECONDS)

    async def leave(self) -> None:
        """This node is going."""
        if self._board is not None:
            try:
                await self._board.leave(self.name)
            except RelayUnavailable:
                pass  # then it is forgotten after PRESENCE_SECONDS

    def _own(self) -> dict[str, Any]:
        return {"node": self.name, "uptime_seconds": round(self._clock() - self._started, 1)} | self._facts()

    async def stats(self) -> dict[str, Any]:
        """Every node's facts, and their sum. Raises RelayUnavailable."""
        nodes = [self._own()] if self._board is None else [_object(text) for text in await self._board.nodes()]
        total: dict[str, Any] = {"nodes": len(nodes), "connections": 0} | {name: {} for name in SUMMED}
        for node in nodes:
            total["connections"] += _count(node.get("connections"))
            for name in SUMMED:
                held = node.get(name)
                for key, number in held.items() if isinstance(held, dict) else ():
                    total[name][key] = total[name].get(key, 0) + _count(number)
        return {"total": total, "nodes": sorted(nodes, key=lambda node: str(node.get("node")))}

    # --- revocations

    async def revoke(self, kind: str, value: str, seconds: float) -> float:
        """Revoke on every node; until when, in unix seconds. Raises ValueError with the reason, RelayUnavailable."""
        mark_of(kind, value)
        until = self._clock() + seconds
        notice = ujson.dumps({kind: value, "until": until})
        if self._board is None:
            self.noticed(notice.encode())
        else:
            await self._board.post(notice)
        return until

    def noticed(self, notice: bytes) -> None:
        """A revocation, of this or another node."""
        facts = _object(notice)
        kind = next((kind for kind in KINDS if isinstance(facts.get(kind), str)), "")
        until = facts.get("until")
        try:
            mark = mark_of(kind, facts.get(kind, ""))
        except ValueError:
            mark = ""
        if not mark or not isinstance(until, int | float):
            log.error("notice_not_understood", notice=notice[:200].decode("utf-8", "replace"))
            return
        if until <= self._clock():
            return
        self._revocations.add(mark, until)
        closed = 0
        for reader in self._broadcaster.all_readers():
            if mark in reader.marks or (kind == TOPIC and facts[TOPIC] in reader.feed.selection.named):
                self._broadcaster.close(reader, REVOKED)
                closed += 1
        log.warning("revoked", kind=kind, streams=closed)


def _object(text: bytes) -> dict[str, Any]:
    try:
        value = ujson.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _count(value: object) -> int:
    return value if isinstance(value, int) else 0
