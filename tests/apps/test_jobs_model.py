"""What of an update is news: statuses, the timestamps of services whose clocks differ, and what a body may hold."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import ujson
from pydantic import ValidationError

from apps.jobs.limits import PerMinute
from apps.jobs.model import Finished, GoesBack, State, Update, advance, first_state
from apps.jobs.reports import read
from apps.moments import written
from bridges.mapping import Unmappable
from handlers.answers import dumps

CREATED = datetime(2026, 11, 21, 12, tzinfo=UTC)
WORKING: dict[str, Any] = {"status": "processing", "progress": 40, "stage": "x", "message": "y"}
END: dict[str, Any] = {"status": "completed", "progress": 100, "stage": "done", "message": "ready"}


def at(seconds: float) -> datetime:
    """So long after the job was created."""
    return CREATED + timedelta(seconds=seconds)


def told(seconds: float) -> str:
    return written(at(seconds).timestamp())


class Job:
    """A job on a node whose clock says how long it has been there."""

    def __init__(self) -> None:
        self.state = first_state("a1", CREATED)
        self.told = [self.state]

    def hear(self, now: float, update: dict[str, Any], stamped: float | None = None) -> bool:
        """True if it was news."""
        body = update if stamped is None else update | {"timestamp": at(stamped).isoformat()}
        after = advance(self.state, Update.model_validate(body), at(now))
        if after is not None:
            self.state = after
            self.told.append(after)
        return after is not None

    def steps(self) -> list[float]:
        return [state.progress for state in self.told]


@pytest.mark.parametrize("status", ["completed", "failed"])
@pytest.mark.parametrize("behind", [3, 3_600, 10**9])
def test_an_end_is_news_whatever_its_timestamp(status: str, behind: float) -> None:
    """J3, J4: of a service whose clock is behind the node's, and after another whose clock runs ahead."""
    early, late = Job(), Job()
    assert early.hear(1, END | {"status": status}, 1 - behind)
    assert late.hear(1, WORKING, 1 + behind)
    assert late.hear(2, END | {"status": status}, 2)
    assert {early.state.status, late.state.status} == {status}


def test_a_service_whose_clock_is_behind_is_heard_from_its_first_report_on() -> None:
    """J4: what it says orders its own reports; that the job was created later by the node's clock makes none old."""
    job = Job()
    for step in range(1, 9):
        assert job.hear(step / 100, WORKING | {"progress": step}, step / 100 - 3)
    assert job.steps() == list(range(9))
    assert not job.hear(1, WORKING | {"progress": 1}, 0.01 - 3)


def test_a_service_whose_clock_runs_ahead_does_not_silence_the_others() -> None:
    """J4: its own reports keep their order all the same."""
    job = Job()
    assert job.hear(10, WORKING | {"progress": 10}, 3_610)
    assert job.hear(11, WORKING | {"progress": 20}, 11)
    assert job.hear(12, WORKING | {"progress": 30}, 3_612)
    assert not job.hear(13, WORKING | {"progress": 25}, 3_611)
    assert not job.hear(14, WORKING | {"progress": 15}, 9)
    assert job.hear(15, WORKING | {"progress": 40})
    assert job.steps() == [0, 10, 20, 30, 40]


def test_a_report_without_a_timestamp_is_of_when_it_came() -> None:
    """J2: also where another node, whose clock is ahead, took the one before."""
    job = Job()
    assert job.hear(10, WORKING | {"progress": 10})
    assert job.hear(8, WORKING | {"progress": 20})
    assert not job.hear(11, WORKING | {"progress": 5}, 7)


def test_what_is_told_has_rising_timestamps_and_none_of_a_time_to_come() -> None:
    """J2: clients order by them; what a service says is told as it is where it can be."""
    job = Job()
    job.hear(5, WORKING | {"progress": 1}, 4)
    job.hear(6, WORKING | {"progress": 2}, 4)
    job.hear(7, WORKING | {"progress": 3}, 3_600)
    job.hear(8, END, -100)
    assert [state.timestamp for state in job.told] == [told(0), told(4), told(4.001), told(7), told(7.001)]
    assert "said" not in job.state.facts()


def test_what_comes_late_is_no_news_and_what_contradicts_is_an_error() -> None:
    """J2."""
    job = Job()
    assert job.hear(5, WORKING, 5)
    assert not job.hear(6, WORKING, 5)
    with pytest.raises(GoesBack):
        job.hear(7, WORKING | {"status": "pending"}, 7)
    assert not job.hear(7, WORKING | {"status": "pending"}, 4)
    assert job.hear(8, END | {"progress": 90}, 8)
    assert not job.hear(9, END | {"progress": 90}, 8)
    assert not job.hear(9, WORKING | {"progress": 50}, 7)
    for other in (WORKING, END | {"status": "failed"}, END | {"data": 1}):
        with pytest.raises(Finished):
            job.hear(10, other, 9)
    assert job.state.progress == 100


@pytest.mark.parametrize("data", [[], ["a"], "text", "", 0, 1.5, False, True, {}, {"a": [None]}])
def test_data_are_any_json(data: object) -> None:
    """J2: the seed's `any`."""
    state = replace(first_state("a1", CREATED), status="processing", data=1)
    after = advance(state, Update.model_validate(WORKING | {"data": data}), at(1))
    assert after is not None
    assert repr(json.loads(after.text())["data"]) == repr(data)


def test_data_may_be_nested_as_deeply_as_they_can_be_read() -> None:
    """J4: a message that raised what nobody expects would come again for ever."""
    depth = 1_000
    job_id, update = read(json.dumps(WORKING | {"jobId": "a1"})[:-1] + f', "data": {"[" * depth}{"]" * depth}}}', {})
    state = advance(first_state(job_id, CREATED), update, at(1))
    assert state is not None
    assert state.text().count("[") == depth


def test_data_that_could_not_be_listed_are_refused() -> None:
    """J4: the list of jobs would break for as long as the job is kept."""
    for depth in (1_021, 1_022, 1_023):
        data = ujson.loads("[" * depth + "]" * depth)
        try:
            dumps({"jobs": [{"data": data}]})
        except OverflowError:
            with pytest.raises(ValidationError, match="must be JSON"):
                Update.model_validate(WORKING | {"data": data})
        else:
            Update.model_validate(WORKING | {"data": data})
    with pytest.raises(OverflowError):
        dumps({"jobs": [{"data": data}]})


def test_data_that_differ_only_in_their_kind_are_news() -> None:
    job = Job()
    for data in (1, True, 1.0, "1", [1], None, 0, False):
        assert job.hear(1, WORKING | {"data": data})
        assert not job.hear(1, WORKING | {"data": data})


@pytest.mark.parametrize(("said", "shown"), [(33.3, "33.3"), (40, "40"), (40.0, "40"), (0, "0"), (99.99, "99.99")])
def test_progress_is_any_number_and_comes_out_as_it_went_in(said: float, shown: str) -> None:
    """J2: and no mere 40 becomes 40.0."""
    job = Job()
    job.hear(1, WORKING | {"progress": said})
    assert f'"progress":{shown},' in job.state.text()


@pytest.mark.parametrize(
    "said", ["2026-11-21T12:00:04.250", "2026-11-21T14:00:04.250+02:00", "2026-11-21T12:00:04.25Z"]
)
def test_a_timestamp_without_a_zone_is_of_utc(said: str) -> None:
    """J2"""
    state = advance(first_state("a1", CREATED), Update.model_validate(WORKING | {"timestamp": said}), at(9))
    assert state is not None
    assert state.timestamp == told(4.25)


def test_a_message_may_hold_more_than_is_known() -> None:
    """J4: what a service adds for others does not cost the report."""
    facts = WORKING | {
        "jobId": "a1",
        "traceId": "0af7",
        "data": ["a"],
        "progress": 33.3,
        "timestamp": "2026-11-21T12:00",
    }
    job_id, update = read(json.dumps(facts), {})
    assert (job_id, update.progress, update.data, update.timestamp) == ("a1", 33.3, ["a"], CREATED)


def test_a_failure_of_many_words_and_lines_is_heard_as_far_as_it_is_shown() -> None:
    """J4: refused, it would be acknowledged and lost, and the job's readers would wait for ever."""
    trace = "Traceback:\r\n\tline 1\x00\ud800" + "x" * 2_000
    facts = {"jobId": "a1", "status": "failed", "progress": 5, "stage": "s\n" * 200, "message": trace}
    _, update = read(json.dumps(facts), {})
    assert update.message == "Traceback:   line 1  " + "x" * 979
    assert update.stage == ("s " * 50).strip()
    state = advance(first_state("a1", CREATED), update, at(1))
    assert state is not None and state.status == "failed"


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ('{"status": "failed", "progress": 1, "data": NaN}', "data"),
        ('{"status": "failed", "progress": 1, "data": ["\\ud800"]}', "data"),
        ('{"status": "failed", "progress": 1, "data": "' + "x" * 16_384 + '"}', "data"),
        ('{"status": "failed", "progress": NaN}', "progress"),
        ('{"status": "failed", "progress": 100.1}', "progress"),
        ('{"status": "failed", "progress": -0.1}', "progress"),
        ('{"status": "failed", "progress": 1, "timestamp": "yesterday"}', "timestamp"),
        ('{"status": "failed"}', "progress"),
    ],
)
def test_what_no_reader_could_be_told_is_refused(text: str, field: str) -> None:
    """J4"""
    with pytest.raises(Unmappable) as caught:
        read(text, {"jobId": "a1"})
    assert caught.value.field == field


def test_the_limit_begins_anew_with_each_minute_and_is_each_owners_own() -> None:
    """J6"""
    now = 59.0
    limit = PerMinute(2, lambda: now)
    assert [limit.take("a") for _ in range(4)] == [True, True, False, False]
    assert limit.take("b")
    now = 60.0
    assert [limit.take("a") for _ in range(3)] == [True, True, False]


def test_a_state_is_told_in_the_seeds_words() -> None:
    """J2"""
    assert list(State("a1", "pending", 0, "s", "m", told(0), ["x"], 1.0).facts()) == [
        "jobId", "status", "progress", "stage", "message", "timestamp", "data",
    ]  # fmt: skip
