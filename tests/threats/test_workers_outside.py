"""S48: what workers connect to when strangers name the addresses, counted outside of them.

`ringcast monitor-worker` and `ringcast job-worker` run as processes, with the ports and the permissions that they have
if nobody sets any, in a network behind which there are a public, a private and a metadata address with somebody at each
(small_world.py). Whatever a URL looks like, and wherever its name or a redirect leads, the public one alone is tried.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.apps.jobbing import begun, job
from tests.apps.monitoring import SECRET, Tenant, register
from tests.apps.worker_process import WorkerProcess
from tests.harness.namespaces import FarNode, reason_not_permitted
from tests.harness.process import Node, wait_until
from tests.threats.conftest import finish
from tests.threats.small_world import LOOPBACK, METADATA, PRIVATE, PUBLIC, World

pytestmark = pytest.mark.skipif(reason_not_permitted() is not None, reason=str(reason_not_permitted()))

NOT_PUBLIC = "the address is not a public one"
LEADS_ELSEWHERE = "the name does not lead to a public address"
# What a name leads to at one question after another.
NAMES: dict[str, tuple[tuple[str, ...], ...]] = {
    "public.example": ((PUBLIC,),),
    "private.example": ((PRIVATE,),),
    "metadata.example": ((METADATA,),),
    "here.example": ((LOOPBACK,),),
    "both.example": ((PUBLIC, METADATA),),
    "goes.example": ((PUBLIC,), (METADATA,)),
    "comes.example": ((METADATA,), (PUBLIC,)),
}
ANSWERED = (f"http://{PUBLIC}/", "http://public.example/")
MOVING = ("http://goes.example/", "http://comes.example/")
REDIRECTS = {
    f"http://{PUBLIC}/to/http://{METADATA}/latest/meta-data/": NOT_PUBLIC,
    f"http://{PUBLIC}/to/http://{PRIVATE}/": NOT_PUBLIC,
    "http://public.example/to/http://metadata.example/": LEADS_ELSEWHERE,
}
SECRETS = {
    f"http://{METADATA}/latest/meta-data/": NOT_PUBLIC,
    "http://2852039166/": NOT_PUBLIC,  # the same
    f"http://[::ffff:{METADATA}]/": NOT_PUBLIC,
    "http://metadata.example/": LEADS_ELSEWHERE,
    "http://both.example/": LEADS_ELSEWHERE,
}
INSIDE = {
    f"http://{PRIVATE}/": NOT_PUBLIC,
    "http://private.example/": LEADS_ELSEWHERE,
    f"http://{LOOPBACK}/": NOT_PUBLIC,
    "http://localhost/": LEADS_ELSEWHERE,
    "http://here.example/": LEADS_ELSEWHERE,
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("world"), NAMES).open() as made:
        yield made


@pytest.fixture(scope="module")
def node(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """It lives beside the workers."""
    started = FarNode(
        world.network,
        tmp_path_factory.mktemp("outside"),
        apps="monitors,jobs",
        database="sqlite:outside.db",
        simulate=False,
        drain_seconds=0,
        monitors_secret=SECRET,
        monitors_min_interval_seconds=1,
        monitors_password_rounds=1,
        monitors_host_per_minute=100_000,
    ).start()
    yield started
    finish(started)


@pytest.fixture(autouse=True)
def _from_now_on(world: World) -> None:
    world.forget()


def monitor_worker(node: Node, **settings: object) -> WorkerProcess:
    own = {name: value for name, value in node.settings.items() if name == "database" or name.startswith("monitors_")}
    return WorkerProcess("monitor-worker", node.folder, **own | {"monitors_servers": node.url} | settings)


def job_worker(node: Node, **settings: object) -> WorkerProcess:
    return WorkerProcess("job-worker", node.folder, jobs_servers=node.url, **settings)


class Monitors:
    """One for each URL, checked every second. They are written into the database: a node takes none with an address
    that is not public, and the worker is not to rely on that."""

    def __init__(self, node: Node, *urls: str) -> None:
        self._tenant: Tenant = register(node)
        self._ids = {url: self._tenant.monitor(ANSWERED[0])["id"] for url in urls}
        with closing(sqlite3.connect(node.folder / "outside.db", timeout=20)) as connection, connection:
            connection.executemany("UPDATE monitors SET url = ? WHERE id = ?", list(self._ids.items()))

    def said(self) -> dict[str, list[str]]:
        """What came of the first two checks of each URL, when there are two of all: a status, or why there is none."""
        found: dict[str, list[str]] = {}
        for url in self._ids:
            wait_until(lambda: len(self._checks(url)) >= 2, 30, f"two checks of {url}")  # noqa: B023 - called at once
            found[url] = self._checks(url)[:2]
        for monitor in self._ids.values():
            assert self._tenant.ask("DELETE", f"/api/v1/monitors/{monitor}").status == 204
        return found

    def _checks(self, url: str) -> list[str]:
        checks = self._tenant.get(f"/api/v1/monitors/{self._ids[url]}/checks")["checks"]
        return [str(check.get("error_message") or check["status_code"]) for check in reversed(checks)]


def read(node: Node, *sources: str) -> list[tuple[str, str]]:
    """What a job has made of its sources, one after another: nothing to complain of, or a problem."""
    job_id = begun(node, topics=["batteries"], sources=sources)
    wait_until(lambda: job(node, job_id)["status"] in ("completed", "failed"), 30, "the end of the job")
    return [(one["source"], one.get("problem", "")) for one in job(node, job_id)["data"]["sources"]]


def test_the_monitor_worker_tries_no_address_but_a_public_one(node: Node, world: World) -> None:
    """S48: by itself, by names, by names that move between two questions; and a redirect is an answer."""
    refused = SECRETS | INSIDE
    monitors = Monitors(node, *ANSWERED, *MOVING, *REDIRECTS, *refused)
    with world.inhabited(monitor_worker(node)):
        said = monitors.said()
    assert world.begun().keys() == world.connections().keys() == {PUBLIC}
    assert {url: said[url] for url in refused} == {url: [reason] * 2 for url, reason in refused.items()}
    assert {url: said[url] for url in REDIRECTS} == {url: ["302"] * 2 for url in REDIRECTS}
    assert {url: said[url] for url in ANSWERED} == {url: ["200"] * 2 for url in ANSWERED}
    assert {url: sorted(said[url]) for url in MOVING} == {url: ["200", LEADS_ELSEWHERE] for url in MOVING}


def test_the_job_worker_tries_no_address_but_a_public_one(node: Node, world: World) -> None:
    """S48: the same, and where a redirect leads is judged like the first address."""
    refused = REDIRECTS | SECRETS | INSIDE
    with world.inhabited(job_worker(node)):
        said = read(node, *ANSWERED, *MOVING, *MOVING, *refused)
    asked = len(ANSWERED) + len(MOVING) + len(REDIRECTS)
    assert world.begun() == world.connections() == {PUBLIC: asked}
    assert said[:2] == [(url, "") for url in ANSWERED]
    assert sorted(said[2:6]) == sorted((url, problem) for url in MOVING for problem in ("", LEADS_ELSEWHERE))
    assert said[6:] == list(refused.items())


def test_workers_that_may_ask_private_networks_never_try_where_secrets_are_kept(node: Node, world: World) -> None:
    """S48: and they do ask the others, so what is not counted above was not for want of a way there."""
    urls = [*SECRETS, *INSIDE]
    monitors = Monitors(node, *urls)
    expected = [*SECRETS.items(), *((url, "") for url in INSIDE)]
    with world.inhabited(job_worker(node, jobs_allow_private=True)):
        assert read(node, *urls) == expected
    assert world.begun() == world.connections() == {PRIVATE: 2, LOOPBACK: 3}
    world.forget()
    with world.inhabited(monitor_worker(node, monitors_allow_private=True)):
        assert monitors.said() == {url: [reason or "200"] * 2 for url, reason in expected}
    assert world.begun().keys() == world.connections().keys() == {PRIVATE, LOOPBACK}
