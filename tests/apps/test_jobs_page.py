"""The page of `jobs` in a browser, and the simulated worker: a job is started, and what becomes of it appears.
A page that made the browser complain fails its test.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.apps.asking import ask
from tests.apps.jobbing import DONE, OPERATOR, ROOT, WORKING, Worker, begun, job, report, states_to_the_end
from tests.apps.tabs import Tabs, fill, wait_text
from tests.browser.chromium import Page
from tests.conftest import StartNode
from tests.faults.witnesses import Attempt
from tests.harness.process import TOKEN_SECRET, Node, wait_until
from tests.threats.tokens import signed


@pytest.fixture
def desk(tabs: Tabs) -> Any:
    """`desk(node)` opens the page."""

    def open_desk(node: Node) -> Page:
        page = tabs.open(f"{node.url}/apps/jobs/")
        page.wait("!document.getElementById('door').hidden || !document.getElementById('desk').hidden")
        return page

    return open_desk


@pytest.fixture
def jobs_node(node: StartNode, tmp_path: Path) -> StartNode:
    """Starts nodes with jobs."""

    def start(*, port: int | None = None, **settings: object) -> Node:
        own = {"apps": "jobs", "database": f"sqlite:{tmp_path}/jobs.db", "simulate": False, "drain_seconds": 0}
        own |= {"retry_min_ms": 100, "retry_max_ms": 200}  # a page does not stay away for longer than it must
        return node(port=port, **own | settings)

    return start


def test_a_job_is_started_and_its_progress_and_result_appear(jobs_node: StartNode, desk: Any) -> None:
    """J1-J3 in a browser: the stages, what was said, the summary, the end of the stream; and the connection's state
    when the server goes and comes back."""
    node = jobs_node()
    page = desk(node)
    assert page.run("document.getElementById('no-job').hidden") is False
    assert page.run("document.getElementById('no-worker').hidden") is False
    fill(page, "start", topics="energy, grids", text="A text about energy.", sources="http://example.com/a")
    wait_text(page, "#state-text", "Live")
    wait_text(page, "#job-status", "pending")
    [started] = ask(node, "GET", ROOT)[1]["jobs"]
    assert (started["topics"], started["texts"], started["sources"]) == (
        ["energy", "grids"],
        1,
        ["http://example.com/a"],
    )
    assert report(node, started["jobId"], WORKING) == 200
    wait_text(page, "#percent", "40 %")
    wait_text(page, "#message", "2 of 5")
    assert page.run("document.querySelector('.stages .now').dataset.stage") == "processing-articles"
    node.kill()
    page.wait("['waiting', 'offline'].includes(document.getElementById('state').dataset.state)")
    node.start()
    wait_text(page, "#state-text", "Live")
    said = {"summary": [{"source": "text 1", "text": "<b>Energy</b> is there."}], "keywords": ["energy"]}
    assert report(node, started["jobId"], DONE | {"data": said}) == 200
    wait_text(page, "#state-text", "The job has ended")
    assert page.run("document.querySelector('#summary li').textContent") == "<b>Energy</b> is there.text 1"
    assert page.run("document.getElementById('simulated').hidden") is True
    assert page.run("document.querySelector('#jobs li').dataset.status") == "completed"
    # Another one, chosen from the list.
    failed = begun(node)
    report(node, failed, {"status": "failed", "progress": 55, "stage": "failed", "message": "no", "data": {}})
    page.run("location.reload()")
    wait_text(page, "#job-status", "failed")
    page.run("document.querySelectorAll('#jobs button')[1].click()")
    wait_text(page, "#job-status", "completed")
    wait_text(page, "#state-text", "The job has ended")


def test_where_there_is_a_key_a_token_says_whose_jobs_these_are(jobs_node: StartNode, desk: Any) -> None:
    """J6: no token, one that does not hold, one's own; nothing of others, and it can be forgotten again."""
    node = jobs_node(jwt_secret=TOKEN_SECRET, simulate=True)
    assert b"ringcast_jobs_simulated" not in node.get("/metrics")[2]
    begun(node, {"sub": "other"}, topics=["secret"], sources=["x"])
    page = desk(node)
    assert page.run("document.getElementById('desk').hidden") is True
    fill(page, "bring-token", token="nonsense")
    page.wait("document.getElementById('token-problem').textContent.startsWith('The token does not hold')")
    fill(page, "bring-token", token=signed({"sub": "mine"}))
    page.wait("!document.getElementById('desk').hidden")
    fill(page, "start", topics="mine", sources="x")
    wait_text(page, "#state-text", "Live")
    [started] = ask(node, "GET", ROOT, claims={"sub": "mine"})[1]["jobs"]
    assert report(node, started["jobId"], WORKING, OPERATOR) == 200
    wait_text(page, "#percent", "40 %")
    assert "secret" not in page.run("document.body.textContent")
    page.run("document.getElementById('leave').click()")
    page.wait("!document.getElementById('door').hidden")
    assert page.run("sessionStorage.length") == 0


@pytest.fixture(scope="module")
def pretending(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node that simulates."""
    folder = tmp_path_factory.mktemp("jobs-simulated")
    started = Node(folder, apps="jobs", database=f"sqlite:{folder}/jobs.db", jobs_simulated_seconds=2).start()
    yield started
    started.kill()


def test_without_a_worker_a_job_is_simulated_and_says_so(pretending: Node, desk: Any) -> None:
    """What `make run` shows: every stage, over a while, marked in every message and in the result."""
    page = desk(pretending)
    fill(page, "start", topics="energy", sources="techcrunch\nars-technica")
    page.wait("!document.getElementById('simulated').hidden")
    wait_text(page, "#job-status", "completed")
    assert page.run("document.getElementById('simulated').hidden") is False
    [done] = ask(pretending, "GET", ROOT)[1]["jobs"]
    assert done["data"]["simulated"] is True
    with Attempt(pretending.port, f"{ROOT}/{begun(pretending)}/events") as stream:
        seen = states_to_the_end(stream)
    assert [state["progress"] for state in seen] == sorted(state["progress"] for state in seen)
    stages = ["queued", "retrieving-content", "processing-articles", "generating-summary", "done"]
    assert list(dict.fromkeys(state["stage"] for state in seen)) == stages
    assert all(state["message"].endswith("(simulated)") for state in seen[1:])
    wait_until(lambda: b"ringcast_jobs_simulated_total 2.0" in pretending.get("/metrics")[2], what="both, counted")


def test_nothing_is_simulated_where_there_is_a_worker(pretending: Node, tmp_path: Path) -> None:
    """Somebody's real work is not made up. (Nor where there is a key: see the test of the page with a token.)"""
    worker = Worker(tmp_path, jobs_servers=pretending.url).start()
    try:
        wait_until(lambda: ask(pretending, "GET", ROOT)[1]["workers"] == 1, 20, "the worker is heard of")
        job_id = begun(pretending, topics=["x"], texts=["A real text."])
        wait_until(lambda: job(pretending, job_id)["status"] == "completed")
        assert "simulated" not in job(pretending, job_id)["data"]
    finally:
        worker.kill()


def test_a_second_node_goes_on_with_what_the_first_has_simulated(jobs_node: StartNode) -> None:
    """One node at a time does it; a node that stops gives its jobs back."""
    first = jobs_node(simulate=True, jobs_simulated_seconds=6)
    second = jobs_node(simulate=True, jobs_simulated_seconds=1)
    job_id = begun(first)
    wait_until(lambda: job(first, job_id)["status"] == "processing")
    first.stop()
    wait_until(lambda: job(second, job_id)["status"] == "completed", 15)
    assert job(second, job_id)["worker"].startswith("simulation ")
