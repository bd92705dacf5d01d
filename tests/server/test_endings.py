"""Endings: the table of the protocol, and what is written of it into a stream."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from server.endings import CONTROL_EVENTS, DRAINING, ENDINGS, FINISHED, UNAUTHORIZED, Ending
from tests.wire.parser import parse_strictly

PROTOCOL = Path(__file__).parents[2] / "docs" / "protocol.md"
ROW = re.compile(r"^\| `(\w+)` \| (\S+) \| (yes|no) \|", re.MULTILINE)
NEVER_BEFORE_A_STREAM = {"max_age", "idle", "slow", "revoked"}


def documented() -> dict[str, tuple[str, bool]]:
    return {code: (status, back == "yes") for code, status, back in ROW.findall(PROTOCOL.read_text())}


def test_the_table_in_the_document_is_the_table_in_the_code() -> None:
    in_code = {
        code: ("–" if code in NEVER_BEFORE_A_STREAM else str(ending.status), ending.reconnect)
        for code, ending in ENDINGS.items()
    }
    assert documented() == in_code


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=lambda ending: ending.code)
def test_a_farewell_is_one_event_with_code_reason_and_whether_to_come_back(ending: Ending) -> None:
    parser = parse_strictly(ending.farewell())
    parser.end()
    [event] = parser.events
    facts = {"code": ending.code, "reason": ending.reason, "reconnect": ending.reconnect}
    assert (event.type, json.loads(event.data)) == (ending.code, facts)


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=lambda ending: ending.code)
def test_a_client_that_should_come_back_is_told_when_in_the_same_block(ending: Ending) -> None:
    found = re.match(rb"retry: ([0-9]{1,7})\nevent: ", ending.farewell())
    assert bool(found) == ending.reconnect
    if found:
        low, high = ending.retry_ms
        assert 0 < low < high
        assert low <= int(found[1]) <= high


def test_delays_are_spread_over_their_range() -> None:
    low, high = DRAINING.retry_ms
    drawn = {DRAINING.jittered_retry_ms() for _ in range(200)}
    assert len(drawn) > 150
    assert low <= min(drawn) < low + (high - low) / 4
    assert high - (high - low) / 4 < max(drawn) <= high


def test_a_delay_can_be_given() -> None:
    assert DRAINING.farewell(77).startswith(b"retry: 77\n")
    assert UNAUTHORIZED.farewell(77) == UNAUTHORIZED.farewell()


def test_only_endings_that_are_final_for_a_browser_carry_no_delay() -> None:
    final = {ending.code for ending in ENDINGS.values() if not ending.reconnect}
    assert final == {"auth_expired", "revoked", "finished", "unauthorized", "forbidden", "not_found", "bad_request"}
    assert FINISHED.status == 204  # the one status that keeps an EventSource from coming back without an error


def test_the_names_that_only_the_server_may_use_are_all_codes_and_the_three_of_a_stream() -> None:
    assert set(ENDINGS) | {"hello", "gap", "heartbeat"} == CONTROL_EVENTS
    assert all(code == ending.code for code, ending in ENDINGS.items())
