"""The tours of the applications' pages, command by command: what a reader types does what the page says."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.apps.asking import ask
from tests.apps.pricing import Api
from tests.apps.touring import Said, Tour, answers_in
from tests.harness.process import free_port, wait_until

# Blocks that nobody runs here, by page and first words, and why.
NOT_RUN = {
    ("jobs", "install -m 600 /etc/ringcast/"): "it changes the machine: tests/systemd tries units and their files"
}
CURRENT = "/api/v1/prices/current"
StartTour = Callable[..., Tour]


@pytest.fixture
def tour(tmp_path: Path) -> Iterator[StartTour]:
    """A factory: `tour(page)`. All must be walked to their end."""
    with ExitStack() as stack:

        def begin(page: str, addresses: dict[str, object] | None = None, **variables: object) -> Tour:
            not_run = [words for on, words in NOT_RUN if on == page]
            return stack.enter_context(Tour(page, tmp_path, addresses or {}, not_run, **variables))

        yield begin


def event(kind: str) -> re.Pattern[str]:
    """An event of this type on a stream."""
    return re.compile(f"^event: {kind}$", re.MULTILINE)


def answers(said: Said) -> list[dict[str, Any]]:
    """Objects of JSON that came one behind the other, without a line's end between them."""
    return [json.loads(answer) for answer in said.text.replace("}{", "}\n{").splitlines()]


def test_the_tour_of_facilities(tour: StartTour) -> None:
    """F1, F2, F4, F6, F7, F9: and the comparison of two strategies."""
    walk = tour("facilities")
    serving, watching, changing = walk.shell(), walk.shell(), walk.shell()
    walk.serve(serving)
    stream = watching.begin(walk.commands())
    stream.shows([event("hello")])
    [changed] = answers(changing.run(walk.commands()))
    assert (changed["capacity_status"], changed["avg_wait_minutes"]) == ("high", 15)
    stream.shows([*walk.shown(), event("wait_time_update")])
    watching.interrupt()
    watching.begin(walk.commands()).shows([event("hello")])
    watching.interrupt()
    asking = walk.commands()
    said = changing.run(asking)
    assert re.findall(r"X-Cache: (\w+)", said.text) == re.findall(r"# (MISS|HIT)", asking) != []
    said.shows(answers_in(asking))
    node = walk.serve(serving)
    for kilometres in range(1, 21):
        assert ask(node, "GET", f"/api/facilities/search?lat=6.5244&lon=3.3792&radius={kilometres}")[0] == 200
    [compared] = ask(node, "GET", "/stats")[1]["response_cache"]["routes"].values()
    assert all({"hit_rate", "stale"} <= compared[strategy].keys() for strategy in "AB")


def test_the_tour_of_prices(tour: StartTour) -> None:
    """P1, P2, P3, P4, P5: with an upstream of the same form on this machine."""
    api = Api()
    try:
        for item in (2, 4151):
            api.trade(item, high=1_000, low=900)
        walk = tour("prices", {"https://prices.runescape.wiki/api/v1/osrs": api.url})
        serving, asking = walk.shell(), walk.shell()
        node = walk.serve(serving)
        wait_until(lambda: ask(node, "GET", f"{CURRENT}?search=whip")[1]["items"], 20, "a market")
        lists = [re.compile('"name":"Abyssal whip"'), re.compile('"period":"7d","sample":true,"step_seconds":1800')]
        said = asking.begin(walk.commands())
        said.shows([*lists, *walk.shown("item_id", "high", "low", "high_time", "low_time")])
        asking.interrupt()
        node = walk.serve(serving)

        def real() -> bool:
            found = ask(node, "GET", CURRENT)[1]["items"]
            return len(found) == 2 and not any(price.get("simulated") for price in found)

        wait_until(real, 20, "real prices, and no others")
    finally:
        api.close()


def test_the_tour_of_monitors(tour: StartTour) -> None:
    """M1, M2, M3, M4, M5."""
    site = free_port()
    walk = tour("monitors", {"8000": site}, RINGCAST_MONITORS_PORTS=site)
    walk.serve(walk.shell())
    shell = walk.shell()
    setting_up = walk.commands()
    shell.run(setting_up)
    stream = shell.run(walk.commands())
    stream.shows(walk.shown("monitor_id", "response_time_ms", "tenant_id"))
    shell.run(walk.in_text("kill $SITE"))
    stream.shows([event("incident_created")])
    shell.run(walk.commands()).shows(walk.shown("id"))
    shell.run(setting_up.partition("\n")[0])
    stream.shows([event("incident_resolved")])
    for command in ("kill $STREAM", "kill $WORKER"):
        shell.run(walk.in_text(command))
    assert answers(shell.run(walk.commands()))[0]["message"] == "Event broadcasted"


def test_the_tour_of_jobs(tour: StartTour) -> None:
    """J1, J2, J3, J4: a simulated worker, the real one, and one's own service."""
    walk = tour("jobs", RINGCAST_JOBS_SIMULATED_SECONDS=1)
    node = walk.serve(walk.shell())
    shell, working = walk.shell(), walk.shell()
    starting = walk.commands()
    shell.run(starting).shows([*answers_in(starting), *walk.shown()])
    working.begin(walk.commands())
    wait_until(lambda: ask(node, "GET", "/api/v1/jobs")[1]["workers"] == 1, 20, "the worker's first question")
    result = shell.run(starting).text
    assert "Batteries stored more energy last year than ever before." in result
    assert '{"source":"ars-technica","problem":"there is no such file"}' in result
    working.interrupt()
    told = answers(shell.run(walk.commands()))
    assert [state["status"] for state in told] == ["pending", "processing", "completed", "completed"]
    assert told[-1]["data"] == {"words": 1200}


def test_the_tour_of_companies(tour: StartTour) -> None:
    """C1, C2, C4, C5: with a real NATS server; without its command, what is published comes from Python."""
    walk = tour("companies", {"4222": free_port()}, RINGCAST_COMPANIES_CHANGE_SECONDS=0.05)
    serving, watching, telling = walk.shell(), walk.shell(), walk.shell()
    walk.serve(serving)
    watching.begin(walk.commands()).shows(walk.shown("metricName", "value"))
    watching.interrupt()
    node = walk.serve(serving)
    wait_until(lambda: ask(node, "GET", "/stats")[1]["bridges"]["companies"]["active"], 20, "the bridge")
    stream = watching.begin(walk.commands())
    stream.shows([event("hello")])
    telling.run(walk.commands(), complaint=".*nats: command not found")
    stream.shows(walk.shown())
    asking = walk.commands()
    said = telling.run(asking)
    said.shows(answers_in(asking))
    assert answers(said)[0]["connections"]["connectionsByCompany"] == {"test-company": 1}
    watching.end()
    stream.shows([event("finished")])
    serving.run(walk.in_text("kill $NATS"))
    walk.serve(serving)
    asking = walk.commands()
    said = telling.begin(asking)
    said.shows([event("hello")])
    telling.interrupt()
    said.shows(answers_in(asking))
