"""From runs to figures, checks, JSON and Markdown."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import results, tables
from benchmarks.outcome import Outcome, Spread, ratio
from benchmarks.scenarios import ALL
from benchmarks.storm import LOSSES, Run, command_line

CLEAN = dict.fromkeys(LOSSES, 0)


def a_run(server: str, cost: float, **losses: int) -> Run:
    return Run(server, "a run", CLEAN | {"cost": cost} | losses)


def an_outcome(cost: float, limit: float, **losses: int) -> Outcome:
    outcome = Outcome("cost", "Cost", "≤ a limit")
    outcome.add([a_run("ringcast", cost, **losses)], ["cost"])
    outcome.check("cost", outcome.median("ringcast", "cost"), "µs", at_most=limit)
    return outcome


def test_a_spread_is_the_median_with_the_lowest_and_the_highest() -> None:
    assert Spread.of([3.0, 1.0, 2.0, 10.0, 0.5]) == Spread(2.0, 0.5, 10.0, 5)


def test_a_check_at_its_limit_passes() -> None:
    assert an_outcome(10, 10).passed
    assert not an_outcome(10.1, 10).passed


def test_a_fast_run_with_losses_is_a_failed_run() -> None:
    outcome = an_outcome(1, 10, missed=1)
    assert not outcome.passed
    assert outcome.failures == ["ringcast, a run: 1 missed"]


def test_losses_of_another_server_are_a_note_and_no_failure() -> None:
    outcome = an_outcome(1, 10)
    outcome.add([a_run("nchan", 1, missed=7)], ["cost"])
    assert outcome.passed
    assert outcome.notes == ["nchan, a run: 7 missed"]


def test_what_was_not_measured_fails() -> None:
    outcome = Outcome("cost", "Cost", "")
    outcome.check("cost", outcome.median("ringcast", "cost"), "µs", at_most=1)
    assert not outcome.passed
    assert outcome.failures == ["not measured: cost"]


def test_an_outcome_without_checks_has_not_passed() -> None:
    assert not Outcome("cost", "Cost", "").passed


@pytest.mark.parametrize(("numerator", "denominator"), [(None, 1.0), (1.0, None), (1.0, 0.0)])
def test_a_ratio_needs_both_its_terms(numerator: float | None, denominator: float | None) -> None:
    assert ratio(numerator, denominator) is None


def test_measuring_one_scenario_keeps_the_others_of_the_same_machine() -> None:
    machine = {"processor": "x"}
    other = Outcome("other", "Other", "")
    before = results.merge({"machine": {}, "outcomes": {}}, [other, an_outcome(1, 10)], machine, ["cost", "other"])
    after = results.merge(before, [an_outcome(99, 10)], machine, ["cost", "other"])
    assert list(after["outcomes"]) == ["cost", "other"]
    assert after["outcomes"]["cost"]["checks"][0]["measured"] == 99


def test_results_of_another_machine_do_not_stay_beside_new_ones() -> None:
    before = results.merge(
        {"machine": {}, "outcomes": {}}, [Outcome("other", "Other", "")], {"processor": "x"}, ["cost", "other"]
    )
    after = results.merge(before, [an_outcome(1, 10)], {"processor": "y"}, ["cost", "other"])
    assert list(after["outcomes"]) == ["cost"]


def test_results_survive_being_written_and_read(tmp_path: Path) -> None:
    path = tmp_path / "results" / "latest.json"
    result = results.merge(results.load(path), [an_outcome(1, 10)], {"processor": "x"}, ["cost"])
    results.save(path, result)
    assert results.load(path) == result


def test_the_table_says_fail_where_a_limit_is_passed() -> None:
    rows = {}
    for name, cost in (("good", 5.0), ("bad", 20.0)):
        result = results.merge({"machine": {}, "outcomes": {}}, [an_outcome(cost, 10)], {}, ["cost"])
        rows[name] = tables.targets(result).splitlines()[-1]
    assert rows["good"] == "| Cost | cost | ≤ 10 µs | 5 µs | 0.50 | pass |"
    assert rows["bad"] == "| Cost | cost | ≤ 10 µs | 20 µs | 2.00 | **fail** |"


def test_only_what_is_between_the_markers_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"above\n{tables.BEGIN}\nold\n{tables.END}\nbelow\n")
    tables.write_into(page, "new")
    assert page.read_text() == f"above\n{tables.BEGIN}\n\nnew\n\n{tables.END}\nbelow\n"


def test_a_page_without_markers_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("text\n")
    with pytest.raises(ValueError, match="no markers"):
        tables.write_into(page, "new")
    assert page.read_text() == "text\n"


def test_every_scenario_has_a_name_of_its_own_and_a_target() -> None:
    assert len({scenario.NAME for scenario in ALL}) == len(ALL)
    assert all(scenario.TITLE and scenario.TARGET for scenario in ALL)


def test_options_become_words() -> None:
    options = {"one_at_a_time": True, "gate": False, "header": ["A: 1", "B: 2"], "rate": 2.5, "pids": None}
    assert command_line(Path("storm"), options) == [
        "storm",
        "--one-at-a-time",
        "--header",
        "A: 1",
        "--header",
        "B: 2",
        "--rate",
        "2.5",
    ]
