"""Companies, without a server: messages and what they become, counts, flags."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy import select

from apps.companies import flags as module
from apps.companies.flags import Flags
from apps.companies.messages import publications
from apps.companies.model import EVENTS, is_company, stats_of
from apps.companies.source import DEMO_COMPANIES, DemoCompany
from apps.companies.store import NodeStore, company_nodes
from apps.companies.tally import Counts
from bridges.database import Database, DatabaseUnavailable
from bridges.mapping import Mapping, Message, Unmappable
from server.event import Event
from server.relay.protocol import Entry

MINUTE = 60_000_000


def message(subject: str, body: object) -> Message:
    return Message(subject, body if isinstance(body, bytes) else json.dumps(body).encode())


@pytest.mark.parametrize(
    ("subject", "body", "kind"),
    [
        ("metrics.calculated", {"metricName": "integration_score", "value": 0.85}, "metric_updated"),
        ("metrics.calculated", {"metricName": "SROI_ratio", "value": 3.2}, "sroi_updated"),
        ("metrics.sroi_calculated", {"value": 3.2}, "sroi_updated"),
        ("q2q.completed", {"value": 70}, "vis_updated"),
        ("journey.flag_updated", {"userId": "u", "flag": "struggling"}, "journey_flag_updated"),
    ],
)
def test_a_subject_says_which_event_it_is(subject: str, body: dict[str, Any], kind: str) -> None:
    """C1, C2."""
    [(channel, event, key)] = Mapping("x", function=publications).publications(
        message(subject, {"companyId": "a", **body})
    )
    assert (channel, event.topics, event.type, event.private, key) == ("companies", ("companies/a",), kind, True, None)
    assert json.loads(event.data) == {"companyId": "a", **body}
    assert kind in EVENTS


def test_a_number_is_an_id_too_and_text_stays_as_it_is() -> None:
    """C2: one line, whatever line ends the body has."""
    body = '{\n "companyId": 17, "note": "a/b ü \\u2028", "value": 0.1}'
    [(_, event, _)] = publications(Message("metrics.x", body.encode()))
    assert event.topics == ("companies/17",)
    assert event.data == '{"companyId":"17","note":"a/b ü \u2028","value":0.1}'


@pytest.mark.parametrize(
    ("subject", "body", "field"),
    [
        ("metrics.x", b"no JSON", "body"),
        ("metrics.x", ["companyId"], "body"),
        ("metrics.x", {}, "companyId"),
        ("metrics.x", {"companyId": None}, "companyId"),
        ("metrics.x", {"companyId": ""}, "companyId"),
        ("metrics.x", {"companyId": True}, "companyId"),
        ("metrics.x", {"companyId": ["a"]}, "companyId"),
        ("metrics.x", {"companyId": "a/b"}, "companyId"),
        ("metrics.x", {"companyId": "*"}, "companyId"),
        ("metrics.x", {"companyId": "{company}"}, "companyId"),
        ("metrics.x", {"companyId": "a" * 129}, "companyId"),
        ("metrics.x", b'{"companyId": "a", "value": NaN}', "body"),
        ("metrics.x", b'{"companyId": "a", "value": "\\ud800"}', "body"),
        ("orders.x", {"companyId": "a"}, "subject"),
    ],
)
def test_what_names_no_company_is_refused(subject: str, body: object, field: str) -> None:
    """C2: and the refusal holds nothing of the message."""
    with pytest.raises(Unmappable) as caught:
        Mapping("x", function=publications).publications(message(subject, body))
    assert caught.value.field == field


@pytest.mark.parametrize("value", ["a", "7", "Acme.Inc", "0b6d9c6e-1f7e-4b4e-9c55-0d2c1f1b7a01", "a:b@c_d"])
def test_what_a_company_may_be_called(value: str) -> None:
    """C1."""
    assert is_company(value)
    assert not is_company(value + "\n")


def test_statistics_have_the_seed_s_form() -> None:
    """C5."""
    found = stats_of({"a": 10, "b": 15}, {"a": 250}, 1_763_035_200.0)
    assert found.model_dump() == {
        "connections": {
            "totalConnections": 25,
            "activeCompanies": 2,
            "connectionsByCompany": {"a": 10, "b": 15},
        },
        "replayCache": {"companies": 1, "totalEvents": 250, "eventsByCompany": {"a": 250}},
        "timestamp": "2025-11-13T12:00:00.000Z",
    }


def entry(position: int, *topics: str) -> Entry:
    return Entry(position, "", Event(topics), b"", 0.0)


def test_what_the_log_has_dropped_counts_no_more() -> None:
    """C5: by minutes, each until the last of it is gone; what is no company's counts for none."""
    counts = Counts()
    counts.add([entry(1, "companies/a"), entry(2, "companies/b"), entry(3, "flags/a"), entry(4)])
    counts.add([entry(MINUTE + 1, "companies/a"), entry(3 * MINUTE, "companies/a", "companies/b")])
    assert counts.by_company() == {"a": 3, "b": 1}
    counts.forget(2)
    assert counts.by_company() == {"a": 3, "b": 1}
    counts.forget(3)
    assert counts.by_company() == {"a": 2}
    counts.add([entry(MINUTE - 1, "companies/b"), entry(MINUTE - 2, "companies/b")])
    counts.forget(MINUTE - 2)
    assert counts.by_company() == {"a": 2, "b": 2}
    counts.forget(3 * MINUTE)
    assert counts.by_company() == {}


def test_the_simulation_speaks_for_demo_companies_alone_and_says_that_it_is_one() -> None:
    """C2: in the form of the real messages, all four kinds."""
    company = DemoCompany(DEMO_COMPANIES[0], random.Random(1))
    events = [one.event for _ in range(200) for one in publications(company.message(0.0))]
    assert {event.type for event in events} == set(EVENTS)
    assert {event.topics for event in events} == {("companies/demo-aurora",)}
    bodies = [json.loads(event.data) for event in events]
    assert all(body["simulated"] is True and body["companyId"] == "demo-aurora" for body in bodies)
    scores = [body["value"] for body in bodies if "metricName" in body]
    assert scores and all(0 < score < 1 for score in scores)


def test_a_node_that_died_is_forgotten(tmp_path: Path) -> None:
    """C5: when its time is over; what it said last is not kept for ever."""

    async def said() -> tuple[list[Any], list[Any], int]:
        database = Database(f"sqlite:{tmp_path}/companies.db")
        await database.start()
        store = NodeStore(database)
        await store.say("dead", {"a": 1}, -1)
        await store.say("long dead", {"a": 1}, -1_000)
        await store.say("there", {"a": 1}, 15)
        await store.say("there", {"a": 2, "b": 1}, 15)
        before = await store.others("me")
        await store.leave("there")
        async with database.reading() as connection:
            rows = len((await connection.execute(select(company_nodes))).all())
        after = await store.others("me")
        await database.stop()
        return list(before), list(after), rows

    assert asyncio.run(said()) == ([{"a": 2, "b": 1}], [], 1)


class Switches:
    """Flags over a table in memory, with a clock of their own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, default: bool) -> None:
        self.now = 1_000.0
        self.set: set[str] = set()
        self.finished: list[str] = []
        self.members = 0
        self.away = False
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)
        channel = SimpleNamespace(index=SimpleNamespace(of_topic=lambda _: [SimpleNamespace(members=self.members)]))
        hub = SimpleNamespace(listen=lambda *_: None, channels={"companies": channel})
        finisher = SimpleNamespace(finish=lambda _, topic, __: self.finished.append(topic))
        self.flags = Flags(cast("Any", self), cast("Any", hub), cast("Any", finisher), "companies", default=default)

    async def with_flag(self, streaming: bool) -> set[str]:
        if self.away:
            raise DatabaseUnavailable("away")
        self.asked = streaming
        return set(self.set)

    def look(self) -> None:
        asyncio.run(self.flags.look())


@pytest.mark.parametrize("default", [True, False])
def test_a_company_s_flag_goes_before_the_default(monkeypatch: pytest.MonkeyPatch, default: bool) -> None:
    """C4: and whoever is switched off is told to end, however the database was changed."""
    switches = Switches(monkeypatch, default=default)
    switches.look()
    assert switches.asked is not default
    assert switches.flags.allow("a") is default
    switches.set = {"a"}
    switches.look()
    assert switches.flags.allow("a") is not default
    assert switches.flags.allow("b") is default
    switches.set = set()
    switches.look()
    assert switches.flags.allow("a") is default
    assert switches.finished == ["companies/a"]


def test_while_the_database_is_away_what_was_known_last_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """C4."""
    switches = Switches(monkeypatch, default=True)
    switches.set = {"a"}
    switches.look()
    switches.away = True
    with pytest.raises(DatabaseUnavailable):
        switches.look()
    assert not switches.flags.allow("a")
    assert switches.flags.allow("b")
    assert switches.finished == ["companies/a"]


def test_who_was_told_to_end_is_gone_before_others_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """C4: a flag that is put back must not end the streams that follow."""
    switches = Switches(monkeypatch, default=True)
    assert switches.flags.settled("a")
    switches.set = {"a"}
    switches.look()
    switches.set = set()
    switches.look()
    assert not switches.flags.settled("a")
    assert switches.flags.settled("b")
    switches.now += 17
    switches.members = 1  # reads slowly, and is still there
    assert not switches.flags.settled("a")
    switches.members = 0
    assert switches.flags.settled("a")
    switches.members = 1
    assert switches.flags.settled("a")
