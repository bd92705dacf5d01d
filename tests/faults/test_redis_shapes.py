"""Redis in its other shapes: a master found through Sentinel that fails over, and a cluster."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import uvloop
from redis import exceptions
from redis.asyncio import Redis

from server.relay.redis_client import ERRORS, Command, Target, ask_each, connect
from server.relay.redis_masters import Masters
from tests.faults.test_redis_faults import EVENTS, gap_reasons, synced
from tests.faults.witnesses import Attempt, Scene
from tests.harness.process import Node, free_port, wait_until
from tests.harness.redis import RedisServer
from tests.threats.conftest import finish, finish_all

LAST_SLOT = 16_383


@pytest.fixture
def sentinel(tmp_path: Path) -> Iterator[tuple[RedisServer, RedisServer, RedisServer]]:
    """A master, a replica of it, and a Sentinel that watches them."""
    servers = []
    try:
        master = RedisServer(tmp_path).start()
        servers.append(master)
        replica = RedisServer(tmp_path, replicaof=f"127.0.0.1 {master.port}").start()
        servers.append(replica)
        watcher = RedisServer(tmp_path, sentinel_of=master.port).start()
        servers.append(watcher)
        wait_until(lambda: synced(master), 10, "the replica in sync")
        wait_until(lambda: known_replicas(watcher) == 1, 15, "the Sentinel knows the replica")
        yield master, replica, watcher
    finally:
        for server in servers:
            server.stop()


def known_replicas(watcher: RedisServer) -> int:
    answer = watcher.command("SENTINEL", "REPLICAS", "watched")
    return int(answer[1:]) if answer.startswith(b"*") else 0


def kill(master: RedisServer) -> None:
    master.kill()


def stand_still(master: RedisServer) -> None:
    """Its connections stay, and nothing comes out of them."""
    master.signal(signal.SIGSTOP)


def start(master: RedisServer) -> None:
    """It comes back empty, and believes that it is the master."""
    master.start()


def go_on(master: RedisServer) -> None:
    """It believes that it is the master still, and does what it was sent."""
    master.signal(signal.SIGCONT)


def follows(one: RedisServer) -> bool:
    with suppress(OSError):  # it may end connections just now
        return one.facts("INFO", "replication").get("role") == "slave"
    return False


@pytest.mark.parametrize(("leave", "come_back"), [(kill, start), (stand_still, go_on)])
def test_nodes_follow_the_master_that_sentinel_names(
    sentinel: tuple[RedisServer, RedisServer, RedisServer],
    tmp_path: Path,
    leave: Callable[[RedisServer], None],
    come_back: Callable[[RedisServer], None],
) -> None:
    """FLT-03: publishers are served again within ten seconds of the master's end, nothing is lost in silence, and when
    the old master returns nobody goes back to it.
    """
    master, replica, watcher = sentinel
    relay = f"redis+sentinel://127.0.0.1:{watcher.port}/watched/0"
    nodes = [Node(tmp_path, relay=relay, drain_seconds=0).start() for _ in range(2)]
    try:
        with Scene(*[node.port for node in nodes]) as scene:
            scene.wait_for(40)
            wait_until(lambda: synced(master), 10, "the replica in sync")
            leave(master)
            if leave is kill:  # one that stands still may be replaced before the nodes have to know of it
                scene.broken(*[node.port for node in nodes])
            left, first = time.monotonic(), scene.publisher.next
            outcomes = scene.history.outcomes
            wait_until(lambda: not follows(replica), 10, "a promotion")
            scene.healed()
            wait_until(lambda: "ok" in [outcomes.get(number) for number in range(first, len(outcomes))], 10, "an ok")
            assert time.monotonic() - left < 10
            wait_until(lambda: all(node.get("/ready")[0] == 200 for node in nodes), 10, "ready with the new master")
            epochs = [log[-1].id[:6] for log in scene.history.seen.values()]
            come_back(master)
            wait_until(lambda: follows(master), 30, "the old master follows the new one")
            scene.wait_for(40)
        assert scene.history.problems(needless_gaps=True) == []
        assert gap_reasons(scene) <= {"epoch"}
        assert [log[-1].id[:6] for log in scene.history.seen.values()] == epochs
        assert not follows(replica)
    finally:
        finish_all(nodes)


def test_a_master_that_stood_still_is_left_by_every_connection_as_soon_as_one_hears_of_another(
    sentinel: tuple[RedisServer, RedisServer, RedisServer],
) -> None:
    """Busy or idle, in all clients of a node: it goes on as a master when it comes back, and a node that asks both in
    turn takes each for the other turned back.
    """
    master, replica, watcher = sentinel
    target = Target(f"redis+sentinel://127.0.0.1:{watcher.port}/watched/0")

    async def where(client: Redis) -> int:
        return int((await client.info("server"))["tcp_port"])

    async def work() -> None:
        masters = Masters()
        one: Any = connect(target, None, masters)
        other: Any = connect(target, None, masters, answer_seconds=30)
        assert {await where(client) for client in (one, other)} == {master.port}
        await asyncio.gather(*[other.ping() for _ in range(3)])  # idle ones, besides the one that will be busy
        stand_still(master)
        busy = asyncio.create_task(other.incr("n"))
        async with asyncio.timeout(30):
            while follows(replica):  # noqa: ASYNC110 - what it waits for is another process
                await asyncio.sleep(0.05)
            while True:
                try:
                    assert await where(one) == replica.port
                    break
                except (exceptions.ConnectionError, exceptions.TimeoutError):
                    await asyncio.sleep(0.05)
            with pytest.raises(exceptions.ConnectionError):
                await busy
        go_on(master)
        for client in (one, other):
            assert await asyncio.gather(*[where(client) for _ in range(8)]) == [replica.port] * 8
            await client.aclose()

    uvloop.run(work())


def has_met_all(one: RedisServer) -> bool:
    facts = one.facts("CLUSTER", "INFO")
    return (facts["cluster_state"], facts["cluster_known_nodes"]) == ("ok", "3")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[list[RedisServer]]:
    """Three masters that share the slots."""
    servers: list[RedisServer] = []
    try:
        kept = {"appendonly": "yes", "appendfsync": "always"}
        options = (kept | {"cluster_enabled": "yes", "cluster_port": str(free_port())} for _ in range(3))
        servers.extend(RedisServer(tmp_path, **one).start() for one in options)
        thirds = [0, 5_461, 10_923, LAST_SLOT + 1]
        for one, first, end in zip(servers, thirds, thirds[1:], strict=False):
            assert one.command("CLUSTER", "ADDSLOTSRANGE", str(first), str(end - 1)) == b"+OK"
        for one in servers[1:]:
            meet = ("CLUSTER", "MEET", "127.0.0.1", str(one.port), one.options["cluster_port"])
            assert servers[0].command(*meet) == b"+OK"
        wait_until(lambda: all(map(has_met_all, servers)), 30, "a cluster")
        yield servers
    finally:
        for one in servers:
            one.stop()


def test_channels_of_a_cluster_are_followed_wherever_they_are(cluster: list[RedisServer], tmp_path: Path) -> None:
    relay = f"redis+cluster://127.0.0.1:{cluster[0].port}"
    nodes = [Node(tmp_path, relay=relay, drain_seconds=0).start() for _ in range(2)]
    try:
        names = ["main", "prices", "jobs", "monitors", "companies"]
        for name in names:
            path = f"/channels/{name}/events"
            with Attempt(nodes[1].port, path) as stream:
                assert stream.next_event(5).type == "hello"
                for number in range(3):
                    body = json.dumps({"topic": "t", "data": f"{name} {number}"})
                    assert nodes[0].request("POST", path, body, Content_Type="application/json")[0] == 200
                assert [stream.next_event(5).data for _ in range(3)] == [f"{name} {number}" for number in range(3)]
        with Scene(*[node.port for node in nodes]) as scene:
            scene.wait_for(60)
        assert scene.history.problems() == []
        assert nodes[0].get(EVENTS.replace("events", "nothing"))[0] == 404
    finally:
        finish_all(nodes)


def test_a_redis_of_a_cluster_that_stands_still_keeps_no_answer_of_the_others_back(
    cluster: list[RedisServer],
) -> None:
    """Questions to several go out side by side; each of its own gets the error instead."""

    async def work() -> None:
        client = connect(Target(f"redis+cluster://127.0.0.1:{cluster[0].port}"), answer_seconds=0.5)
        commands = [Command(f"key {number}", ("SETEX", f"key {number}", 60, number)) for number in range(200)]
        assert await ask_each(client, commands) == [True] * 200
        ports = [client.get_node_from_key(command.key).port for command in commands]
        stand_still(cluster[2])
        asked = asyncio.get_running_loop().time()
        answers = await ask_each(client, commands)
        assert asyncio.get_running_loop().time() - asked < 2  # it is waited for once, and not for each
        for port, answer in zip(ports, answers, strict=True):
            assert isinstance(answer, ERRORS) if port == cluster[2].port else answer is True
        assert set(ports) == {one.port for one in cluster}
        go_on(cluster[2])
        await client.aclose()

    uvloop.run(work())


@pytest.mark.parametrize("durable", [False, True])
def test_a_cluster_that_went_down_with_all_nodes_has_to_be_known_as_one_that_loses_nothing(
    cluster: list[RedisServer], tmp_path: Path, durable: bool
) -> None:
    """Nobody is left who could tell what it had: without a word of the operator that is a new epoch."""
    settings = {"relay": f"redis+cluster://127.0.0.1:{cluster[0].port}", "redis_durable": durable}
    before = Node(tmp_path, **settings).start()
    try:
        body = json.dumps({"topic": "t", "data": "before"})
        status, _, answer = before.request("POST", EVENTS, body, Content_Type="application/json")
        assert status == 200
        before.kill()
        for one in cluster:
            one.kill()
        for one in cluster:
            one.start()
        wait_until(lambda: all(map(has_met_all, cluster)), 30, "a cluster")
        after = Node(tmp_path, **settings).start()
        with Attempt(after.port, EVENTS, Last_Event_ID=json.loads(answer)["ids"][0]) as stream:
            hello = json.loads(stream.next_event(5).data)
            assert hello["complete"] is durable
            if not durable:
                assert json.loads(stream.next_event(5).data)["reason"] == "epoch"
        finish(after)
    finally:
        finish(before)
