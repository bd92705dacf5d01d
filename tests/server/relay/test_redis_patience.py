"""A Redis that is away is tried about once a second, whoever wants it, and one that is there is never waited for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.relay import redis_patience
from server.relay.protocol import RelayUnavailable
from server.relay.redis_client import ERRORS, Target, ask, connect
from server.relay.redis_patience import Patience
from tests.harness.proxy import Proxy
from tests.harness.redis import RedisServer
from tests.server.relay.bench import run


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Proxy]:
    redis = RedisServer(tmp_path).start()
    one = Proxy(redis.port).start()
    yield one
    one.stop()
    redis.stop()


def test_all_connections_of_a_node_wait_for_one_try_and_go_on_when_one_has_succeeded(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_patience, "TRY_SECONDS", 0.3)

    async def main() -> None:
        patience = Patience()
        target = Target(f"redis://127.0.0.1:{proxy.port}/0")
        clients = [connect(target, patience) for _ in range(3)]
        assert [await client.ping() for client in clients] == [True] * 3
        proxy.reset(refuse=True)
        before, began = proxy.accepted, asyncio.get_running_loop().time()
        for client in clients:  # each notices the end of its connection
            with contextlib.suppress(*ERRORS, RelayUnavailable):
                await client.ping()
        while proxy.accepted < before + 4:
            for client in clients:
                with pytest.raises(RelayUnavailable, match="redis does not answer"):
                    await ask(client.ping())
            await asyncio.sleep(0.005)
        assert asyncio.get_running_loop().time() - began > 3 * 0.3
        proxy.heal()
        await asyncio.sleep(0.3 * 1.2)  # until a try is allowed for sure
        assert [await client.ping() for client in clients] == [True] * 3
        for client in clients:
            await client.aclose()

    run(main())


def test_a_connection_that_is_there_is_not_held_up_by_others_that_cannot_be_made(proxy: Proxy) -> None:
    async def main() -> None:
        patience = Patience()
        client = connect(Target(f"redis://127.0.0.1:{proxy.port}/0"), patience)
        assert await client.ping()
        patience.failed("too many connections")
        assert await client.ping()
        with pytest.raises(RelayUnavailable, match="too many connections"):
            patience.begin()
        await client.aclose()

    run(main())
