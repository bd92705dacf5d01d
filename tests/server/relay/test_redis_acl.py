"""config/redis as it is shipped, on a real Redis: nodes do all that they do as the user `ringcast`, and nothing else.

A master and a replica run with the shipped files; two nodes publish, replay, revoke and tell of each other. Then the
master says which commands were called and which refused.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, ResponseError
from redis.retry import Retry

from handlers.cache_redis import RedisStore
from ringcast import RedisPublisher
from server.relay.redis_client import Target, connect
from tests.faults.witnesses import Attempt
from tests.handlers.cache_redis_bench import change, named, write
from tests.harness.process import ROOT, TOKEN_SECRET, Node, wait_until
from tests.harness.redis import RedisServer
from tests.threats.conftest import finish, finish_all
from tests.threats.tokens import signed

SHIPPED = ROOT / "config" / "redis"
JOBS = "/api/v1/jobs"
JOB = {"topics": ["t"], "sources": ["s"]}
EVENTS = "/channels/{}/events"
RIGHTS = {"publish": ["*"], "subscribe": ["*"]}
OPERATOR = f"Bearer {signed({'ringcast': {'operate': True}})}"
# Few, so that entries are dropped and own ids forgotten: that takes commands of its own.
RETAINED = 5


def password_of(user: str) -> str:
    return f"the password of {user}"


class GuardedRedis(RedisServer):
    """A Redis that takes the shipped files as its settings say it should; each user has a password. It answers nobody
    without a name.
    """

    def __init__(self, folder: Path, **options: str) -> None:
        super().__init__(folder)
        shutil.copytree(SHIPPED, self.folder, dirs_exist_ok=True)
        users, settings = self.folder / "ringcast.acl", self.folder / "ringcast.conf"
        users.write_text("\n".join(map(self._with_password, users.read_text().splitlines())) + "\n")
        text = settings.read_text()
        assert "\naclfile /etc/redis/ringcast.acl\n" in text
        settings.write_text(text.replace("/etc/redis/ringcast.acl", str(users)))
        own = {"port": str(self.port), "bind": "127.0.0.1", "dir": str(self.folder), "include": str(settings)}
        own["repl-diskless-sync-delay"] = "0"  # else a replica waits five seconds for further ones
        own |= options
        self.file = self.folder / "redis.conf"
        self.file.write_text("".join(f"{name} {value}\n" for name, value in own.items()))

    @staticmethod
    def _with_password(line: str) -> str:
        user = line.split()[1]
        return line.replace(" on ", f" on #{sha256(password_of(user).encode()).hexdigest()} ")

    def start(self) -> GuardedRedis:
        with self.log_path.open("ab") as log:
            command = ["redis-server", str(self.file)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        wait_until(self._answers, 10, f"Redis on port {self.port}")
        return self

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log_path.read_text()
        try:
            return self.command("PING").startswith(b"-NOAUTH")
        except OSError:
            return False

    def client(self, user: str | None, password: str | None = None) -> Redis:
        password = password_of(user) if user and password is None else password
        once = Retry(NoBackoff(), 0)
        return Redis(port=self.port, username=user, password=password, decode_responses=True, retry=once)


def node_over(redis: GuardedRedis, folder: Path, **settings: object) -> Node:
    return Node(
        folder,
        relay=f"redis://127.0.0.1:{redis.port}/1",
        redis_username="ringcast",
        redis_password=password_of("ringcast"),
        jwt_secret=TOKEN_SECRET,
        drain_seconds=0,
        **settings,
    )


class Site(NamedTuple):
    """Two nodes over a guarded master and its replica."""

    master: GuardedRedis
    nodes: list[Node]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Nodes that have done everything and have stopped; the master is up."""
    folder = tmp_path_factory.mktemp("acl")
    master = GuardedRedis(folder)
    replica = GuardedRedis(
        folder, replicaof=f"127.0.0.1 {master.port}", masteruser="replica", masterauth=f'"{password_of("replica")}"'
    )
    channels = json.dumps({"main": {"retain_events": RETAINED}, "split": {"shards": 2}})
    nodes: list[Node] = []
    try:
        master.start()
        replica.start()
        wait_until(lambda: master.client("operator").wait(1, 100) == 1, 20, "the replica in sync")
        settings = {"redis_replicas": 1, "channels": channels, "apps": "jobs", "database": f"sqlite:{folder}/data.db"}
        nodes.extend(node_over(master, folder, **settings).start() for _ in range(2))
        for deed in DEEDS:
            deed(Site(master, nodes))
        finish_all(nodes)
        yield Site(master, nodes)
    finally:
        finish_all(nodes)
        replica.stop()
        master.stop()


# --- what nodes do


def token(**claims: Any) -> str:
    return f"Bearer {signed({'mercure': RIGHTS, 'ringcast': {'split': RIGHTS}} | claims)}"


def publish(node: Node, data: str, channel: str = "main", headers: dict[str, str] | None = None, **fields: str) -> str:
    """The event's id."""
    body = json.dumps({"topic": "t", "data": data} | fields)
    headers = {"Authorization": token(), "Content_Type": "application/json"} | (headers or {})
    status, _, answer = node.request("POST", EVENTS.format(channel), body, **headers)
    assert status == 200, answer
    (wire_id,) = json.loads(answer)["ids"]
    return str(wire_id)


def stream(node: Node, channel: str = "main", **headers: str) -> Attempt:
    attempt = Attempt(node.port, EVENTS.format(channel), **({"Authorization": token()} | headers))
    assert attempt.next_event(5).type == "hello"
    return attempt


def publish_and_replay(site: Site) -> None:
    one, other = site.nodes
    with stream(other) as live:
        first = publish(one, "first", headers={"Idempotency_Key": "k"})
        assert publish(other, "first", headers={"Idempotency_Key": "k"}) == first
        publish(other, "second")
        assert [live.next_event(5).data for _ in range(2)] == ["first", "second"]
    with stream(other, Last_Event_ID=first) as replayed:
        assert replayed.next_event(5).data == "second"
    _, _, body = one.get("/stats?scope=cluster", Authorization=OPERATOR)
    assert json.loads(body)["total"]["nodes"] == 2


def publish_with_own_ids(site: Site) -> None:
    """More than are retained, so that the first ones are forgotten."""
    for number in range(RETAINED * 2):
        publish(site.nodes[0], f"{number}", id=f"own-{number}")
    with stream(site.nodes[1], Last_Event_ID=f"own-{RETAINED * 2 - 2}") as replayed:
        block = replayed.next_event(5)
        assert block.id == f"own-{RETAINED * 2 - 1}", block.fields


def use_shards(site: Site) -> None:
    with stream(site.nodes[1], "split") as live:
        publish(site.nodes[0], "split", "split")
        assert live.next_event(5).data == "split"
    with stream(site.nodes[1], "split", Last_Event_ID="own-id-of-nothing"):
        pass  # Redis was asked for it


def lose_the_scripts(site: Site) -> None:
    """As after a failover: the new master may not know them."""
    site.master.client("operator").script_flush()
    publish(site.nodes[0], "after")
    publish(site.nodes[1], "after")


def revoke(site: Site) -> None:
    with stream(site.nodes[1], Authorization=token(sub="alice")) as live:
        body = json.dumps({"subject": "alice"})
        headers = {"Authorization": OPERATOR, "Content_Type": "application/json"}
        assert site.nodes[0].request("POST", "/revocations", body, **headers)[0] == 200
        assert live.next_event(5).type == "revoked"


def publish_directly(site: Site) -> None:
    url = f"redis://127.0.0.1:{site.master.port}/1"
    publisher = RedisPublisher(url, username="ringcast", password=password_of("ringcast"))
    with stream(site.nodes[0]) as live:
        publisher.publish("t", "direct")
        assert live.next_event(5).data == "direct"
    publisher.close()


def report_on_a_job(site: Site) -> None:
    """What a bridge does; of the two nodes one has the turn."""

    def heard() -> bool:
        return bool(site.master.client("operator").publish("job:1:updates", '{"status": "processing"}'))

    wait_until(heard, 15, "a node that listens")
    for node in site.nodes:
        wait_until(lambda node=node: checks(node)["bridge_jobs_redis"] == "ok", 15, "the bridge")


def watch_a_job(site: Site) -> None:
    """Its node registers the stream, and takes it out again."""
    node, operator = site.nodes[0], site.master.client("operator")
    operator.select(1)
    owner = token(sub="owner")
    started = node.request("POST", JOBS, json.dumps(JOB), Authorization=owner, Content_Type="application/json")
    job_id = json.loads(started[2])["jobId"]

    def registered() -> bool:
        return any(operator.hexists(name, job_id) for name in operator.keys("{ringcast}:jobs:streams:*"))

    with Attempt(node.port, f"{JOBS}/{job_id}/events", Authorization=owner):
        wait_until(registered, 15, "the stream in Redis")
    wait_until(lambda: not registered(), 15, "no stream in Redis")


def checks(node: Node) -> dict[str, str]:
    found: dict[str, str] = json.loads(node.get("/ready")[2])["checks"]
    return found


def keep_an_answer(site: Site) -> None:
    """What the cache of responses does in the nodes' Redis."""
    target = Target(f"redis://127.0.0.1:{site.master.port}/1", "ringcast", password_of("ringcast"))

    async def main() -> None:
        store = RedisStore(connect(target), "ringcast", max_bytes=1 << 20, max_entries=10)
        try:
            await write(store, named("an answer", "a tag"))
            await store.drop(change("a tag"))
        finally:
            await store.stop()

    asyncio.run(main())


DEEDS = (
    publish_and_replay,
    publish_with_own_ids,
    use_shards,
    lose_the_scripts,
    revoke,
    publish_directly,
    keep_an_answer,
    report_on_a_job,
    watch_a_job,
)


# --- what they may


def allowed(user: str) -> set[str]:
    """The commands in the user's line."""
    [line] = [line for line in (SHIPPED / "ringcast.acl").read_text().splitlines() if line.split()[1] == user]
    return {word[1:] for word in line.split() if word.startswith("+")}


def test_nodes_ask_for_nothing_that_they_may_not(site: Site) -> None:
    assert site.master.client("operator").acl_log() == []


def test_they_may_nothing_that_they_never_ask_for(site: Site) -> None:
    called = site.master.client("operator").info("commandstats")
    assert allowed("ringcast") - {name.removeprefix("cmdstat_") for name in called} == set()


@pytest.mark.parametrize(
    "command",
    [
        "FLUSHALL", "FLUSHDB", "SWAPDB 0 1", "SHUTDOWN", "SAVE", "REPLICAOF NO ONE", "FAILOVER",
        "CONFIG GET *", "CONFIG SET maxmemory 1", "ACL LIST", "ACL SETUSER ringcast allcommands", "CLIENT LIST",
        "CLIENT KILL TYPE normal", "MONITOR", "KEYS *", "SCAN 0", "RANDOMKEY", "DBSIZE", "SCRIPT FLUSH",
        "FUNCTION LIST", "PUBLISH {ringcast:main}:events x", "SUBSCRIBE x", "UNLINK {ringcast:main}:events",
        "RENAME {ringcast:main}:events {ringcast:other}:events", "DUMP {ringcast:main}:events",
    ],
)  # fmt: skip
def test_a_command_that_no_node_needs_is_refused(site: Site, command: str) -> None:
    with pytest.raises(NoPermissionError):
        site.master.client("ringcast").execute_command(*command.split(" "))


@pytest.mark.parametrize(
    "call",
    ["'FLUSHALL'", "'CONFIG', 'GET', '*'", "'KEYS', '*'", "'GET', 'session:1'", "'UNLINK', '{ringcast:main}:own'"],
)
def test_a_script_may_no_more_than_its_caller(site: Site, call: str) -> None:
    with pytest.raises(ResponseError, match=r"can't (run|access)|not allowed from script"):
        site.master.client("ringcast").eval(f"return redis.call({call})", 0)


@pytest.mark.parametrize(
    "key", ["session:1", "ringcast", "{ringcaster:main}:events", "{other}:notices", "x{ringcast:main}"]
)
def test_keys_of_others_are_refused(site: Site, key: str) -> None:
    with pytest.raises(NoPermissionError):
        site.master.client("ringcast").get(key)
    with pytest.raises(NoPermissionError):
        site.master.client("ringcast").delete(key)


def test_nobody_gets_in_without_a_name_or_with_a_wrong_password(site: Site) -> None:
    with pytest.raises(AuthenticationError):
        site.master.client(None).ping()
    for user in ("default", "operator", "ringcast"):
        with pytest.raises(AuthenticationError):
            site.master.client(user, "another").ping()


def test_a_redis_that_was_killed_has_everything_again(tmp_path: Path) -> None:
    """What scripts write stands in the append-only file as transactions, which are loaded with the rights of `default`:
    it is off, and must yet be allowed everything.
    """
    redis = GuardedRedis(tmp_path, appendfsync="always").start()
    node = node_over(redis, tmp_path).start()
    try:
        ids = [publish(node, f"{number}") for number in range(20)]
        redis.kill()
        redis.start()
        assert "NOPERM" not in redis.log_path.read_text()
        wait_until(lambda: node.get("/ready")[0] == 200, 15, "the node is ready again")
        with stream(node, Last_Event_ID=ids[0]) as replayed:
            assert [replayed.next_event(5).id for _ in ids[1:]] == ids[1:]
    finally:
        finish(node)
        redis.stop()


def test_a_redis_that_has_written_its_settings_anew_starts_again(tmp_path: Path) -> None:
    """Sentinel makes it write them. Users that stand in the settings would then be there twice."""
    redis = GuardedRedis(tmp_path).start()
    try:
        redis.client("operator").config_rewrite()
        assert "Generated by CONFIG REWRITE" in redis.file.read_text()
        redis.kill()
        redis.start()
        assert redis.client("ringcast").ping()
    finally:
        redis.stop()


def test_the_shipped_settings_keep_what_was_acknowledged(site: Site) -> None:
    """No eviction, and an append-only file; none of it is taken back by what stands before."""
    settings = site.master.client("operator").config_get()
    wanted = {"maxmemory-policy": "noeviction", "appendonly": "yes", "appendfsync": "everysec", "save": ""}
    assert {name: settings[name] for name in wanted} == wanted
    assert settings["client-output-buffer-limit"].startswith("normal 0 0 0 ")
