"""Monitors without sockets or databases: alert rules, the schedule, limits, and the form of events."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from typing import Any

import pytest
from pydantic import ValidationError

from apps.monitors.alerts import GOOD_SHARE, Rule, opens, resolves
from apps.monitors.checker import Checker
from apps.monitors.limits import MAX_KEYS, Buckets
from apps.monitors.model import FACTS, NewRule, Outcome, Said, rule_problem
from apps.monitors.results import Results
from apps.monitors.schedule import (
    FULL_SECONDS,
    NEW_SECONDS,
    OVERDUE_SECONDS,
    PUT_OFF_SECONDS,
    SPARE_ENTRIES,
    Monitor,
    Schedule,
)
from apps.monitors.sign_in import crowd_of
from apps.monitors.source import Site
from bridges.database import DatabaseUnavailable
from bridges.outbound import Answer, PutOff
from server.selection import Selection
from server.selectors import exact_selector

DAY = 86_400


def rule(
    trigger_type: str = "down", threshold: int = 0, breaches: int = 3, window: int = 3, recoveries: int = 2
) -> Rule:
    return Rule("r", "Rule", trigger_type, threshold, breaches, window, recoveries)


def run(of: Rule, checks: list[Outcome]) -> list[str]:
    """What becomes of a row of checks: `open` and `over` at the places where it turns, `-` elsewhere."""
    turns, since, is_open = [], 0, False
    for number in range(len(checks)):
        newest_first = checks[since : number + 1][::-1]
        turn = resolves(of, newest_first) if is_open else opens(of, newest_first) is not None
        if turn:
            is_open, since = not is_open, number + 1
        turns.append(("open" if is_open else "over") if turn else "-")
    return turns


def outcomes(text: str) -> list[Outcome]:
    """`.` is a good check, `x` a failed one."""
    return [Outcome(float(number), mark == ".", 200) for number, mark in enumerate(text)]


def timed(*milliseconds: int) -> list[Outcome]:
    return [Outcome(float(number), True, 200, time) for number, time in enumerate(milliseconds)]


@pytest.mark.parametrize(
    ("checks", "turns"),
    [
        ("xx.xx.xx.", "- - - - - - - - -"),  # never three in a row
        ("xxx", "- - open"),
        ("xxxx..", "- - open - - over"),
        ("xxx.x.x..", "- - open - - - - - over"),  # one good check resolves nothing
        ("xxx..xx..", "- - open - over - - - -"),  # and what opened it does not open the next
        ("xxx..xxx", "- - open - over - - open"),
    ],
)
def test_an_incident_opens_and_is_resolved_without_flapping(checks: str, turns: str) -> None:
    """M3"""
    assert run(rule(), outcomes(checks)) == turns.split()


@pytest.mark.parametrize(
    ("checks", "turns"), [("x.x.x", "- - - - open"), ("x..x..x", "- - - - - - -"), ("xx..x..", "- - - - open - over")]
)
def test_three_of_five_are_enough_if_the_rule_says_so(checks: str, turns: str) -> None:
    """M3"""
    assert run(rule(window=5), outcomes(checks)) == turns.split()


def test_a_response_time_between_good_and_bad_turns_nothing() -> None:
    """M3: a value that wavers around the threshold opens one incident, not one a minute."""
    slow = rule("slow_response", 500, breaches=2, window=2, recoveries=2)
    assert run(slow, timed(510, 520, 490, 495, 505, 460, 490, 500, 450, 440)) == [
        "-", "open", "-", "-", "-", "-", "-", "-", "-", "over",
    ]  # fmt: skip
    assert GOOD_SHARE * 500 == 450


def test_what_has_no_response_time_says_nothing_of_it() -> None:
    slow = rule("slow_response", 500, breaches=1, window=1)
    assert opens(slow, [Outcome(0.0, False, None, None, "the connection was refused")]) is None
    assert opens(slow, timed(812)) == "Response time: 812ms (threshold: 500ms)"


@pytest.mark.parametrize(
    ("days", "trigger"),
    [
        (15.5, None),
        (14.0, "SSL certificate expires in 14 days (on 1970-01-15)"),
        (1.5, "SSL certificate expires in 1 day (on 1970-01-02)"),
        (-0.5, "SSL certificate has expired (on 1969-12-31)"),
    ],
)
def test_a_certificate_that_runs_out(days: float, trigger: str | None) -> None:
    """M3"""
    ending = rule("ssl_expiry", 14, breaches=1, window=1, recoveries=1)
    assert opens(ending, [Outcome(0.0, True, 200, 1, ssl_valid=True, ssl_expires=days * DAY)]) == trigger


def test_two_machines_of_which_one_has_an_old_certificate_make_one_incident() -> None:
    """M3: whichever of them answers the next check."""
    made = NewRule.model_validate({"name": "a", "trigger_type": "ssl_expiry", "threshold_value": 14})
    ending = rule("ssl_expiry", 14, made.breaches, made.window, made.recoveries)
    checks = [Outcome(0.0, True, 200, 1, ssl_valid=True, ssl_expires=days * DAY) for days in (3, 80, 3, 80, 3, 80, 80)]
    assert run(ending, checks) == ["open", "-", "-", "-", "-", "-", "over"]


def test_a_site_that_is_down_is_said_to_be_with_its_reason() -> None:
    checks = [Outcome(float(number), False, error_message="HTTP status 502") for number in range(3)]
    assert opens(rule(), checks) == "Monitor is down: HTTP status 502"


def test_a_rule_for_certificates_needs_one_check_and_others_three() -> None:
    made = NewRule.model_validate({"name": "a", "trigger_type": "ssl_expiry", "threshold_value": 14})
    assert (made.breaches, made.window, made.recoveries) == (1, 1, 2)
    made = NewRule.model_validate({"name": "a", "trigger_type": "down", "breaches": 5})
    assert (made.breaches, made.window, made.recoveries) == (5, 5, 2)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        (("down", 5, 3, 3), "threshold_value"),
        (("slow_response", 0, 3, 3), "threshold_value"),
        (("down", 0, 4, 3), "window"),
        (("slow_response", 5, 3, 3), None),
    ],
)
def test_the_values_of_a_rule_have_to_go_together(values: tuple[str, int, int, int], field: str | None) -> None:
    problem = rule_problem(*values)
    assert (problem[0] if problem else None) == field


# --- events


def test_an_event_is_an_object_with_type_data_and_tenant() -> None:
    """M4: as the seed's blocks have it."""
    outcome = Outcome(1.5, False, 503, 12, "HTTP status 503", ssl_valid=True, ssl_expires=86_400.0)
    said = Said(7, "monitor_check", {"monitor_id": "m", "monitor_name": "Shop"} | outcome.facts())
    event = said.event()
    assert (event.type, event.topics, event.private) == ("monitor_check", ("tenants/7",), True)
    assert json.loads(event.data) == {
        "type": "monitor_check",
        "data": {
            "monitor_id": "m",
            "monitor_name": "Shop",
            "success": False,
            "status_code": 503,
            "response_time_ms": 12,
            "error_message": "HTTP status 503",
            "ssl_valid": True,
            "ssl_expires_at": "1970-01-02T00:00:00.000Z",
            "checked_at": "1970-01-01T00:00:01.500Z",
        },
        "tenant_id": 7,
    }


def test_an_event_of_one_tenant_is_for_no_other() -> None:
    """M1: by the one function that decides, live and replayed. 7 is not 70."""
    event = Said(70, "monitor_check", {}).event()
    for tenant in (7, 0, 700):
        topic = exact_selector(f"tenants/{tenant}")
        assert not Selection(frozenset([topic]), None, (topic,)).wants(event)
        assert not Selection(None, None, (topic,)).wants(event)


CHECK = {"monitor_id": "test"}
CREATED = {"monitor_id": "m", "alert_rule_id": "r", "rule_name": "n", "trigger_value": "t", "status": "open"}


@pytest.mark.parametrize(
    ("kind", "data", "field"),
    [
        ("monitor_check", {}, "monitor_id"),
        ("monitor_check", CHECK | {"monitor_id": ""}, "monitor_id"),
        ("monitor_check", CHECK | {"monitor_id": 5}, "monitor_id"),
        ("monitor_check", CHECK | {"success": 1}, "success"),
        ("monitor_check", CHECK | {"status_code": "200"}, "status_code"),
        ("monitor_check", CHECK | {"status_code": 99}, "status_code"),
        ("monitor_check", CHECK | {"response_time_ms": -1}, "response_time_ms"),
        ("monitor_check", CHECK | {"checked_at": "yesterday"}, "checked_at"),
        ("monitor_check", CHECK | {"checked_at": "2026-01-01T00:00:00"}, "checked_at"),
        ("monitor_check", CHECK | {"error_message": "a\nb"}, "error_message"),
        ("monitor_check", CHECK | {"more": 1}, "more"),
        ("incident_created", CREATED | {"status": "resolved"}, "status"),
        ("incident_created", CHECK, "alert_rule_id"),
        ("incident_resolved", CREATED, "trigger_value"),
    ],
)
def test_what_the_worker_reports_has_to_be_valid(kind: str, data: dict[str, Any], field: str) -> None:
    """M2"""
    with pytest.raises(ValidationError) as caught:
        FACTS[kind].model_validate(data)
    assert field in {error["loc"][0] for error in caught.value.errors()}


# --- the schedule


def monitor(name: str, *, interval: int = 60, changed: float = 0.0, checked: float | None = None) -> Monitor:
    return Monitor(name, 1, "http://a.example/", interval, 10.0, None, True, changed, checked)


def half() -> float:
    return 0.5


def test_a_new_monitor_is_checked_at_once_and_then_at_its_interval() -> None:
    """M3: with a jitter, so that monitors of one interval part."""
    for chance, wait in ((0.0, 54.0), (0.5, 60.0), (1.0, 66.0)):
        schedule = Schedule(itertools.repeat(chance).__next__)
        schedule.put(monitor("a"), 100.0, 0.0)
        assert schedule.next(100.0 + NEW_SECONDS) == monitor("a")
        assert schedule.next(200.0) is None  # it is at work
        schedule.done("a", 101.0, 103.0)
        assert schedule.next(101.0 + wait - 0.01) is None
        assert schedule.next(101.0 + wait) is not None


def test_a_check_that_takes_longer_than_its_interval_is_followed_by_the_next() -> None:
    schedule = Schedule(half)
    schedule.put(monitor("a", interval=2), 0.0, 0.0)
    assert schedule.next(1.0) is not None
    schedule.done("a", 1.0, 9.0)
    assert schedule.next(9.0) is not None


def test_what_was_checked_before_a_restart_is_checked_when_it_is_due() -> None:
    schedule = Schedule(half)
    schedule.put(monitor("a", checked=1_000.0), 50.0, 1_020.0)  # due in 40 s
    assert schedule.next(89.9) is None
    assert schedule.next(90.0) is not None


def test_what_was_due_while_no_worker_ran_is_spread() -> None:
    schedule = Schedule(half)
    schedule.put(monitor("a", checked=1.0), 0.0, 1_000_000.0)
    assert schedule.wait_seconds(0.0, 60.0) == OVERDUE_SECONDS / 2


def test_a_clock_that_was_set_back_puts_nothing_off_for_more_than_an_interval() -> None:
    schedule = Schedule(half)
    schedule.put(monitor("a", checked=1_000_000.0), 0.0, 5.0)
    assert schedule.wait_seconds(0.0, 600.0) == 60.0


def test_a_changed_monitor_is_checked_as_it_is_now_and_a_deleted_one_not_at_all() -> None:
    schedule = Schedule(half)
    schedule.put(monitor("a", checked=1_000.0), 0.0, 1_000.0)
    schedule.put(monitor("a", interval=5, changed=1_001.0, checked=1_000.0), 1.0, 1_001.0)
    found = schedule.next(2.0)
    assert found is not None and found.interval_seconds == 5
    schedule.put(monitor("a", interval=7, changed=1_002.0), 2.0, 1_002.0)  # while it is at work
    assert schedule.next(3.0) is None
    schedule.done("a", 2.0, 3.0)
    found = schedule.next(3.0 + NEW_SECONDS)  # what was found is of what it was before
    assert found is not None and found.interval_seconds == 7
    schedule.keep(())
    schedule.done("a", 4.0, 5.0)
    assert schedule.next(1_000.0) is None
    assert (len(schedule), schedule.wait_seconds(0.0, 1.0)) == (0, 1.0)


def test_who_stands_by_and_is_at_work_again_checks_no_more_often() -> None:
    """M3: what was due before is due once."""
    schedule = Schedule(half)
    for turn in range(5):
        schedule.keep(())
        schedule.put(monitor("a", checked=1_000.0), float(turn), 1_000.0)
    checks = 0
    for second in range(600):
        if schedule.next(float(second)) is not None:
            checks += 1
            schedule.done("a", float(second), float(second))
    assert checks == 9


def test_changes_leave_nothing_behind() -> None:
    """Whoever changes monitors all day long does not fill the worker's memory."""
    schedule = Schedule(half)
    for number in range(5 * SPARE_ENTRIES):
        schedule.put(monitor("a", interval=86_400, changed=float(number)), 0.0, 0.0)
        found = schedule.next(NEW_SECONDS)
        assert found is not None
        schedule.done("a", 0.0, 0.0)
    assert len(schedule._due) <= SPARE_ENTRIES + 3


def test_a_tenant_s_slow_sites_leave_room_for_another_s() -> None:
    """M3, S48: of the checks under way each tenant has a share at most."""
    schedule = Schedule(half, most_of_one=2)
    for name in ("a", "b", "c", "d"):
        schedule.put(monitor(name), 0.0, 0.0)
    schedule.put(monitor("other")._replace(tenant=2), 0.0, 0.0)
    found = [schedule.next(1.0) for _ in range(4)]
    assert [one.id for one in found if one] == ["a", "b", "other"]
    assert schedule.next(1.0 + FULL_SECONDS) is None
    schedule.done("a", 1.0, 2.0)
    following = schedule.next(2.0)
    assert following is not None and following.id in ("c", "d")
    for name in ("b", "other", following.id):
        schedule.done(name, 1.0, 3.0)
    assert not schedule._of_tenant


def test_a_check_that_was_put_off_is_tried_again_before_long() -> None:
    schedule = Schedule(half)
    schedule.put(monitor("a", interval=86_400), 0.0, 0.0)
    assert schedule.next(1.0) is not None
    schedule.done("a", 1.0, 1.0, put_off=True)
    assert schedule.next(1.0 + PUT_OFF_SECONDS) is not None


# --- limits


def test_a_bucket_fills_up_again_and_is_its_key_s_own() -> None:
    """M6"""
    now = 0.0
    buckets = Buckets(2.0, 3, lambda: now)
    assert [buckets.take("a") for _ in range(4)] == [True, True, True, False]
    assert buckets.take("b")
    now = 0.4
    assert not buckets.take("a")
    now = 0.9
    assert [buckets.take("a") for _ in range(2)] == [True, False]
    assert all(Buckets(0.0, 0, lambda: now).take("a") for _ in range(5))


def test_buckets_are_bounded() -> None:
    buckets = Buckets(1.0, 1)
    for number in range(MAX_KEYS + 10):
        buckets.take(str(number))
    assert len(buckets._left) == MAX_KEYS


class Asked:
    """Stands in for the guard of outgoing requests: every name leads to one address."""

    def __init__(self) -> None:
        self.requests = 0

    async def get(self, url: str, *, permit: Any, **_: object) -> Answer:
        permit("192.0.2.1")
        self.requests += 1
        return Answer(url, 200, {}, b"", False, 0.01, None)


def test_a_tenant_has_one_address_asked_so_often_by_whatever_names() -> None:
    """S48: beyond that a check is put off, which is no failure of the site. Another tenant's are its own."""

    async def work() -> None:
        asked = Asked()
        outbound: Any = asked
        checker = Checker(outbound, address_per_minute=20, per_minute=1_000)
        found: list[bool | None] = []
        for number in range(15):
            try:
                one = monitor("a")._replace(url=f"http://{number}.example/")
                found.append((await checker.check(one)).success)
            except PutOff:
                found.append(None)
        assert found == [True] * 10 + [None] * 5
        assert (await checker.check(monitor("b")._replace(tenant=2))).success
        assert asked.requests == 11

    asyncio.run(work())


def test_a_tenant_has_so_many_checks_whatever_it_does_to_its_monitors() -> None:
    """S48: a monitor that is changed is checked at once, which must make nobody a scanner."""

    async def work() -> None:
        asked = Asked()
        outbound: Any = asked
        checker = Checker(outbound, address_per_minute=100_000, per_minute=60)
        put_off = 0
        for number in range(40):
            try:
                await checker.check(monitor("a")._replace(url=f"http://{number}.example/"))
            except PutOff:
                put_off += 1
        assert 20 <= put_off <= 25 and asked.requests == 40 - put_off
        assert (await checker.check(monitor("b")._replace(tenant=2))).success

    asyncio.run(work())


@pytest.mark.parametrize(
    ("address", "crowd"),
    [
        ("192.0.2.1", "192.0.2.1"), ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"), ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::/64"), ("", ""),
    ],
)  # fmt: skip
def test_who_guesses_is_counted_by_what_is_hard_to_have_many_of(address: str, crowd: str) -> None:
    assert crowd_of(address) == crowd


# --- what was found


class Storing:
    """A database that is there or not, and a worker that is the one at work or not."""

    def __init__(self, most: int = 100) -> None:
        self.stored: list[float] = []
        self.away = self.is_ours = True
        self.results = Results(most, self._store, self._is_ours)

    async def _store(self, monitor_id: str, outcome: Outcome) -> None:
        if self.away:
            raise DatabaseUnavailable("away")
        if monitor_id == "poison":
            raise ValueError("cannot be written")
        self.stored.append(outcome.checked)

    async def _is_ours(self) -> bool:
        return self.is_ours

    async def finished(self) -> None:
        task = asyncio.create_task(self.results.run())
        async with asyncio.timeout(10):
            await self.results.all_stored()
        task.cancel()


def test_what_was_found_waits_for_the_database_in_order_and_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """M3: then the oldest go, which is counted; and what can't be written holds nothing up."""
    monkeypatch.setattr("apps.monitors.results.RETRY_SECONDS", 0.01)

    async def work() -> None:
        storing = Storing(most=5)
        for number in range(8):
            storing.results.add("poison" if number == 5 else "a", Outcome(float(number), True))
        assert (len(storing.results), storing.results.dropped) == (5, 3)
        asyncio.get_running_loop().call_later(0.05, setattr, storing, "away", False)
        await storing.finished()
        assert (storing.stored, storing.results.dropped) == ([3.0, 4.0, 6.0, 7.0], 4)

    asyncio.run(work())


def test_what_was_found_while_another_worker_took_over_is_not_stored() -> None:
    """M3: that one has checked on, and an old result must not come after its new ones."""

    async def work() -> None:
        storing = Storing()
        storing.away = storing.is_ours = False
        for number in range(3):
            storing.results.add("a", Outcome(float(number), True))
        await storing.finished()
        assert (storing.stored, storing.results.dropped) == ([], 3)

    asyncio.run(work())


# --- the simulation


def test_simulated_sites_fall_ill_and_get_well_and_say_that_they_are_simulated() -> None:
    site = Site("https://a.example/", random.Random(1))
    found = [site.check(1_000_000.0 + number) for number in range(2_000)]
    assert all(outcome.simulated and outcome.facts()["simulated"] for outcome in found)
    failed = sum(not outcome.success for outcome in found)
    assert 20 < failed < 400
    times = [outcome.response_time_ms for outcome in found if outcome.response_time_ms is not None]
    assert min(times) >= 8 and max(times) < 10_000
