"""`ringcast job-worker` as a process: it does jobs, and what it says reaches their streams, whatever is away."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from config.settings import Settings
from tests.apps.heard_reports import HeardReports
from tests.apps.jobbing import ARTICLE, OPERATOR, ROOT, Site, Worker, begun, job, states, states_to_the_end
from tests.conftest import StartNode, starting
from tests.faults.witnesses import Attempt
from tests.harness.postgres import PostgresServer
from tests.harness.process import TOKEN_SECRET, Node, wait_until
from tests.harness.pubsub import PROJECT, PubSubEmulator, subscription_path
from tests.harness.redis import RedisServer
from tests.threats.tokens import bearer, signed

STAGES = ["queued", "retrieving-content", "processing-articles", "generating-summary", "done"]
ABANDONED_SECONDS = 2
StartWorker = Callable[..., Worker]


@pytest.fixture
def start_node(tmp_path: Path) -> Iterator[StartNode]:
    """Starts nodes with other settings."""
    with starting(tmp_path) as start:
        yield start


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    made = Site()
    yield made
    made.close()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node that all tests here use which need no other settings."""
    folder = tmp_path_factory.mktemp("jobs-worker")
    started = Node(folder, **settings_of(folder)).start()
    yield started
    started.kill()


def settings_of(folder: Path, **settings: object) -> dict[str, Any]:
    """Of nodes and their workers: a worker that says nothing is soon taken for dead."""
    own: dict[str, Any] = {"apps": "jobs", "database": f"sqlite:{folder}/jobs.db", "simulate": False}
    return own | {"jobs_abandoned_seconds": ABANDONED_SECONDS} | settings


@pytest.fixture
def worker(tmp_path: Path, site: Site) -> Iterator[StartWorker]:
    """Starts workers for a node, which read a folder with one article and may ask the site."""
    folder = tmp_path / "articles"
    folder.mkdir()
    (folder / "ars-technica.html").write_text(ARTICLE)
    started: list[Worker] = []

    def start(node: Node, **settings: object) -> Worker:
        own = {"jobs_servers": node.url, "jobs_folder": folder, "jobs_ports": site.port, "jobs_allow_private": True}
        own["jobs_abandoned_seconds"] = ABANDONED_SECONDS
        started.append(Worker(tmp_path, **own | settings).start())
        return started[-1]

    yield start
    for one in started:
        one.kill()


@pytest.fixture
def held(site: Site) -> Iterator[Callable[[], int]]:
    """Nothing is read from the site until the test ends or opens it; gives how often it has been asked since."""
    site.open.clear()
    before = len(site.asked)
    yield lambda: len(site.asked) - before
    site.open.set()


def test_a_worker_does_a_job_and_its_owner_sees_every_stage(node: Node, worker: StartWorker, site: Site) -> None:
    """J1-J3: given texts, a file, a URL, and a source that is not there."""
    texts = ["The grid needs batteries, and the batteries need a grid that is strong enough."]
    job_id = begun(node, topics=["batteries"], sources=["ars-technica", site.url(), "none"], texts=texts)
    with Attempt(node.port, f"{ROOT}/{job_id}/events") as stream:
        [first] = states(stream, 1)
        running = worker(node)
        seen = [first, *states_to_the_end(stream)]
    assert list(dict.fromkeys(state["stage"] for state in seen)) == STAGES
    assert [state["progress"] for state in seen] == sorted(state["progress"] for state in seen)
    assert [state["timestamp"] for state in seen] == sorted(state["timestamp"] for state in seen)
    last = seen[-1]
    assert (last["status"], last["progress"]) == ("completed", 100)
    assert last["data"]["summary"]
    assert [one.get("problem") for one in last["data"]["sources"]] == [None, None, None, "there is no such file"]
    assert len(seen) == 1 + 4 + 4 + 1 + 1
    assert running.stop() == 0
    assert job_id in running.log()


def test_a_job_that_cannot_be_done_fails_with_a_reason(node: Node, worker: StartWorker) -> None:
    """J2, S48: also what must not be asked."""
    job_id = begun(node, topics=["x"], sources=["http://169.254.169.254/latest/", "../secret"])
    with Attempt(node.port, f"{ROOT}/{job_id}/events") as stream:
        worker(node)
        last = states_to_the_end(stream)[-1]
    assert last["status"] == "failed"
    assert last["message"].startswith("nothing could be read; http://169.254.169.254/latest/: ")
    assert len(last["data"]["sources"]) == 2


@pytest.fixture
def heard(node: Node) -> Iterator[HeardReports]:
    """What workers say to the node."""
    with closing(HeardReports(node)) as made:
        yield made


def held_up(node: Node, site: Site, rng: random.Random) -> str:
    """A job whose worker is held up by the site, with some to say before and after."""
    texts = [f"Text {number} is about batteries." for number in range(rng.randrange(1, 5))]
    return begun(node, topics=["x"], sources=[site.url()] * rng.randrange(1, 4), texts=texts)


@pytest.mark.fault
def test_a_worker_that_is_stopped_gives_its_job_back_and_one_that_dies_is_taken_for_dead(
    node: Node, worker: StartWorker, site: Site, held: Callable[[], int], heard: HeardReports, seed: int
) -> None:
    """J2: the job is done once, by whoever had it last; whatever was taken of what they all said is told once."""
    rng = random.Random(seed)
    job_id = held_up(node, site, rng)
    with heard.watched(job_id, seed) as audience:
        for number, killed in enumerate(rng.sample([False, True], 2), 1):
            one = worker(node, jobs_servers=heard.root)
            wait_until(lambda number=number: held() == number, 20, "a worker reads")  # type: ignore[misc]
            time.sleep(rng.uniform(0, ABANDONED_SECONDS / 2))
            if killed:
                one.kill()
            else:
                assert one.stop() == 0
                assert "job_given_back" in one.log()
        last = worker(node, jobs_servers=heard.root)
        wait_until(lambda: held() == 3, 20, "the third worker reads")
        site.open.set()
        last.wait_log("job_done")
        assert heard.history(job_id, audience).problems() == []
    assert job(node, job_id)["status"] == "completed"


@pytest.mark.fault
def test_a_worker_that_stood_still_too_long_says_nothing_of_a_job_that_is_anothers(
    node: Node, worker: StartWorker, site: Site, held: Callable[[], int], heard: HeardReports, seed: int
) -> None:
    """J2."""
    rng = random.Random(seed)
    job_id = held_up(node, site, rng)
    with heard.watched(job_id, seed) as audience:
        first = worker(node, jobs_servers=heard.root)
        wait_until(lambda: held() == 1, 20, "the first worker reads")
        time.sleep(rng.uniform(0, ABANDONED_SECONDS / 2))
        first.signal(signal.SIGSTOP)
        worker(node, jobs_servers=heard.root)
        wait_until(lambda: held() == 2, 20, "the second worker reads")
        time.sleep(rng.uniform(0, 0.5))
        first.signal(signal.SIGCONT)
        first.wait_log("job_lost")
        site.open.set()
        wait_until(lambda: job(node, job_id)["status"] == "completed")
        assert heard.history(job_id, audience).problems() == []


@pytest.mark.fault
def test_the_last_report_waits_for_a_server_that_is_away(
    start_node: StartNode, worker: StartWorker, site: Site, held: Callable[[], int], tmp_path: Path, seed: int
) -> None:
    """J2: the work goes on, and its end is known when the server is back; no job is lost, nor what was said of it."""
    rng = random.Random(seed)
    node = start_node(**settings_of(tmp_path, relay=f"sqlite:{tmp_path}/log.db"))
    job_id = held_up(node, site, rng)
    with closing(HeardReports(node)) as heard, heard.watched(job_id, seed) as audience:
        running = worker(node, jobs_servers=heard.root)
        wait_until(lambda: held() == 1, 20, "the worker reads")
        time.sleep(rng.uniform(0, 0.5))
        node.kill()
        site.open.set()
        running.wait_log("server_away")
        time.sleep(rng.uniform(0, 0.5))
        node.start()
        running.wait_log("job_done")
        assert heard.history(job_id, audience).problems() == []
        assert running.stop() == 0
    assert job(node, job_id)["status"] == "completed"


def test_so_many_jobs_are_in_hand_at_a_time(
    node: Node, worker: StartWorker, site: Site, held: Callable[[], int]
) -> None:
    """J2: the others wait at the nodes, for other workers too."""
    site.pages |= {f"/article?{number}": site.pages["/article"] for number in range(3)}
    started = [begun(node, topics=["x"], sources=[site.url(f"/article?{number}")]) for number in range(3)]
    running = worker(node, jobs_concurrency=2)
    wait_until(lambda: held() == 2, 20, "two are read")
    assert running.log().count("job_taken") == 2
    assert [job(node, one)["status"] for one in started].count("pending") == 1
    site.open.set()
    wait_until(lambda: all(job(node, one)["status"] == "completed" for one in started))
    assert held() == 3


def test_it_needs_the_token_of_a_service(start_node: StartNode, worker: StartWorker, tmp_path: Path) -> None:
    """J6: with another one it says so and tries again; and a job's owner sees it done."""
    node = start_node(**settings_of(tmp_path, jwt_secret=TOKEN_SECRET))
    owner = {"sub": "owner"}
    job_id = begun(node, owner, topics=["batteries"], sources=["ars-technica"])
    first = worker(node, jobs_worker_token=signed(owner))
    first.wait_log("answered 403")
    assert first.stop() == 0
    with Attempt(node.port, f"{ROOT}/{job_id}/events", Authorization=bearer(signed(owner))) as stream:
        worker(node, jobs_worker_token=signed(OPERATOR))
        assert states_to_the_end(stream)[-1]["status"] == "completed"


def test_it_reports_by_redis(
    start_node: StartNode, worker: StartWorker, postgres: PostgresServer, tmp_path: Path
) -> None:
    """J4: `PUBLISH job:ID:updates`, heard by a node over PostgreSQL; the last report until a node knows of it."""
    redis = RedisServer(tmp_path).start()
    try:
        node = start_node(**settings_of(tmp_path, relay=redis.url, database=postgres.url("jobs_by_redis")))
        job_id = begun(node, topics=["batteries"], sources=["ars-technica"])
        with Attempt(node.port, f"{ROOT}/{job_id}/events") as stream:
            running = worker(node, relay=redis.url, jobs_report_by="redis")
            assert list(dict.fromkeys(state["stage"] for state in states_to_the_end(stream))) == STAGES
        bridge = json.loads(node.get("/stats")[2])["bridges"]["jobs_redis"]
        assert (bridge["received"] >= 4, bridge["unmappable"]) == (True, 0)
        assert running.stop() == 0
    finally:
        redis.stop()


def test_it_reports_by_google_pubsub(start_node: StartNode, worker: StartWorker, tmp_path: Path) -> None:
    """J4: through a real emulator, pulled by a node."""
    emulator = PubSubEmulator(tmp_path).start()
    try:
        emulator.make("updates", "jobs")
        own = {"pubsub_url": emulator.url, "jobs_pubsub_subscription": subscription_path("jobs")}
        node = start_node(**settings_of(tmp_path, **own))
        job_id = begun(node, topics=["batteries"], sources=["ars-technica"])
        with Attempt(node.port, f"{ROOT}/{job_id}/events") as stream:
            topic = f"projects/{PROJECT}/topics/updates"
            running = worker(node, pubsub_url=emulator.url, jobs_report_by="pubsub", jobs_pubsub_topic=topic)
            seen = states_to_the_end(stream)
        assert (seen[-1]["status"], seen[-1]["stage"]) == ("completed", "done")
        assert set(STAGES) >= {state["stage"] for state in seen}
        assert running.stop() == 0
    finally:
        emulator.stop()


def test_settings_that_cannot_be_used_end_it_at_once(tmp_path: Path) -> None:
    running = Worker(tmp_path, jobs_report_by="redis").start()
    assert running.process is not None
    assert running.process.wait(20) == 2
    assert "jobs_redis: reports go by redis, and there is none" in running.log()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("jobs_report_by", "pigeon"),
        ("jobs_servers", "localhost:80"),
        ("jobs_redis", "redis://user:password@127.0.0.1/0"),
        ("jobs_pubsub_topic", "updates"),
        ("jobs_pubsub_subscription", "a/b"),
    ],
)
def test_a_setting_that_cannot_be_is_named(name: str, value: str) -> None:
    with pytest.raises(ValidationError, match=name):
        Settings.model_validate({name: value})
