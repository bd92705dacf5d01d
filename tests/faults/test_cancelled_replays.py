"""Replays that are given up while Redis, far away, is still reading for them: S32 of the threats.

A connection that is given up in the middle of an answer could hand that answer to the next one who asks.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from server.relay.redis_client import script
from tests.faults.checker import residue
from tests.faults.test_redis_faults import Site
from tests.faults.vital_signs import LEFT_SECONDS, held
from tests.harness.overheard import Overheard
from tests.harness.process import TOKEN_SECRET, Node, wait_until
from tests.harness.proxy import PIECE, Proxy
from tests.harness.redis import RedisServer
from tests.harness.stream import Stream, request_bytes
from tests.rounds import ROUNDS
from tests.threats.tokens import bearer, signed

PATH = "/channels/main/events?topic=*"
TENANTS = 8
EVENTS_EACH = 60
IN_MEMORY = 10
ONE_WAY_SECONDS = 0.05
CUTS = 10_000 if ROUNDS > 1 else 1_000
FIRST_CUTS = 500  # after these the pages that are kept are as many as they get
AT_ONCE = 50
SPARE = 4  # connections to Redis: as many as were ever of use at once are kept
LONGEST_SECONDS = 0.3  # three times what it takes until the first page can have come
_RESET = struct.pack("ii", 1, 0)


class Distant(Proxy):
    """Each way takes its time, however much is under way."""

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: str) -> None:
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        arriving = asyncio.create_task(self._arrive(under_way, writer))
        try:
            while data := await reader.read(PIECE):
                under_way.put_nowait((self._loop.time() + ONE_WAY_SECONDS, data))
        except OSError:
            pass
        finally:
            arriving.cancel()
            self._abort(writer)

    async def _arrive(self, under_way: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        while True:
            due, data = await under_way.get()
            await asyncio.sleep(due - self._loop.time())
            writer.write(data)


class FarSite(Site):
    """One node, a tenth of a second from its Redis."""

    def __init__(self, folder: Path, redis: RedisServer) -> None:
        super().__init__(folder, redis, 0)
        self.proxies = [Distant(redis.port).start()]
        settings: dict[str, Any] = {"drain_seconds": 0, "jwt_secret": TOKEN_SECRET, "ring_events": IN_MEMORY}
        self.nodes = [Node(folder, relay=f"redis://127.0.0.1:{self.proxies[0].port}/0", **settings)]


def data_of(tenant: int, number: int) -> str:
    return f"mark-{tenant}-" * 50 + str(number)


TOKENS = [
    bearer(signed({"mercure": {"subscribe": [f"of/{one}"]}, "tenant": f"tenant {one}", "sub": f"reader of {one}"}))
    for one in range(TENANTS)
]


def publish(node: Node, *numbers: int) -> list[list[str]]:
    """For each number a private event of each tenant; the ids, by number."""
    events = [
        {"topic": f"of/{one}", "private": True, "data": data_of(one, number)}
        for number in numbers
        for one in range(TENANTS)
    ]
    headers = {"Authorization": bearer(signed()), "Content_Type": "application/x-ndjson"}
    status, _, body = node.request("POST", PATH.partition("?")[0], "\n".join(map(json.dumps, events)), **headers)
    assert status == 200, body
    ids: list[str] = json.loads(body)["ids"]
    return [ids[at : at + TENANTS] for at in range(0, len(ids), TENANTS)]


async def cut(port: int, tenant: int, cursor: str, rng: random.Random) -> bytes:
    """A replay that is given up at some moment, by FIN or by RST; what it got until then."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    got = bytearray()
    try:
        head = {"Host": "x", "Authorization": TOKENS[tenant], "Last-Event-ID": cursor}
        writer.write(request_bytes(PATH, **head))
        async with asyncio.timeout(rng.uniform(0, LONGEST_SECONDS)):
            while data := await reader.read(PIECE):
                got += data
    except TimeoutError:
        pass
    finally:
        if rng.random() < 0.5:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        writer.transport.abort()
    return bytes(got)


async def cut_all(node: Node, ids: list[list[str]], count: int, rng: random.Random) -> Counter[str]:
    """As many as asked for, some at a time, while more is published; how many got what."""
    found: Counter[str] = Counter()
    turns, one_at_a_time = iter(range(count)), asyncio.Lock()

    async def go_on() -> None:
        for turn in turns:
            tenant = rng.randrange(TENANTS)
            cursor = rng.choice(["earliest", rng.choice(ids)[tenant], rng.choice(ids)[rng.randrange(TENANTS)]])
            got = await cut(node.port, tenant, cursor, rng)
            marks = set(re.findall(rb"mark-(\d+)-", got))
            found["foreign"] += bool(marks - {str(tenant).encode()})
            found["replayed"] += bool(marks)
            found["given up before anything came"] += not marks
            if turn % 100 == 0:
                async with one_at_a_time:
                    ids.extend(await asyncio.to_thread(publish, node, len(ids)))

    await asyncio.gather(*[go_on() for _ in range(AT_ONCE)])
    return found


def whole(node: Node, tenant: int, count: int) -> None:
    """A replay of all that is the tenant's, and nothing else."""
    with Stream(node.port, PATH, Authorization=TOKENS[tenant], Last_Event_ID="earliest") as stream:
        assert [block.data for block in stream.events(count)] == [data_of(tenant, number) for number in range(count)]


def held_with(node: Node, redis: RedisServer, spare: int = 0) -> dict[str, int]:
    """What the node holds, and its connections at Redis (with whoever else is there): those in `spare` may be added."""
    facts = held(node)
    facts["descriptors"] += spare
    return facts | {"at Redis": int(redis.facts("INFO", "clients")["connected_clients"]) + spare}


def left_over(before: dict[str, int], now: Callable[[], dict[str, int]]) -> list[str]:
    """What is held more than before; who has just gone may take a moment."""
    end = time.monotonic() + LEFT_SECONDS
    while (found := residue(before, now())) and time.monotonic() < end:
        time.sleep(0.1)
    return found


@pytest.mark.timeout(300)
def test_replays_that_are_given_up_while_redis_reads_leave_nothing_and_nobody_gets_anothers(
    tmp_path: Path, seed: int
) -> None:
    """S32: thousands, of eight tenants, at any moment; who stays gets all of its own meanwhile. Afterwards no
    connection, task or descriptor is left, neither here nor at Redis, and the node answers at once.
    """
    rng = random.Random(seed)
    redis = RedisServer(tmp_path).start()
    site = FarSite(tmp_path, redis)
    try:
        [node] = site.start().nodes
        ids = publish(node, *range(EVENTS_EACH))
        asyncio.run(cut_all(node, ids, FIRST_CUTS, rng))
        wait_until(lambda: held(node)["connections"] == 0, 10, "the first readers gone")
        before, known = held_with(node, redis, SPARE), len(ids)
        staying = [Stream(node.port, PATH, Authorization=token) for token in TOKENS]
        with Overheard(redis, "evalsha", script("read").digest) as reads:
            found = asyncio.run(cut_all(node, ids, CUTS, rng))
        assert found["foreign"] == 0
        assert min(found["replayed"], found["given up before anything came"]) > CUTS / 10
        assert reads.count > CUTS / 50  # those who ask for the same at the same time share one

        began = time.monotonic()
        ids += publish(node, len(ids))
        assert time.monotonic() - began < 2
        for tenant, stream in enumerate(staying):
            with stream:
                blocks = stream.events(len(ids) - known)
            assert [block.data for block in blocks] == [data_of(tenant, n) for n in range(known, len(ids))]
            whole(node, tenant, len(ids))
        left = left_over(before, lambda: held_with(node, redis))
        assert left == [], left
    finally:
        site.stop()
        redis.stop()
