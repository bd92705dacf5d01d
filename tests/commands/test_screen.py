"""The meter and the screen."""

from __future__ import annotations

import io
import time

from server.commands.meter import Meter, duration, size
from server.commands.screen import CLEAR_LINE, MAX_LINES_PER_DRAW, Screen
from server.ids import format_id
from tests.harness.process import wait_until


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_line_has_counts_rate_lag_and_state() -> None:
    meter = Meter(100.0)
    for number in range(3000):
        meter.event(format_id("k3x9q1", 50_000_000 - number), 50.25)
    meter.bytes, meter.gaps, meter.state = 1_500_000, 1, "live"
    assert meter.line(102.0) == "3,000 events · 1,500/s · 1.5 MB · lag 253.0 ms · 1 gap · 0 reconnects · live"
    assert "lag 253.0 ms" in meter.line(102.1)
    meter.event(format_id("k3x9q1", 50_000_000), 50.001)
    assert "lag 1.0 ms" in meter.line(102.2)


def test_the_rate_forgets_what_is_long_ago() -> None:
    meter = Meter(0.0)
    meter.events = 1000
    for tenth in range(1, 100):
        meter.line(tenth / 10)
    assert " · 0/s · " in meter.line(10.0)


def test_an_id_of_another_form_has_no_lag() -> None:
    meter = Meter(0.0)
    meter.event("my-own-id", 50.0)
    assert "lag –" in meter.line(1.0)


def test_numbers_have_fitting_units() -> None:
    assert [size(count) for count in (0, 999, 1000, 2_500_000, 10**10)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "2.5 MB",
        "10.0 GB",
    ]
    assert [duration(seconds) for seconds in (0.0001, 0.9, 61.0)] == ["0.1 ms", "900.0 ms", "61.0 s"]


def test_off_a_terminal_there_is_no_counter_and_every_line() -> None:
    output, errors = io.StringIO(), io.StringIO()
    with Screen(Meter(0.0), output, errors) as screen:
        screen.lines([str(number) for number in range(1000)])
        screen.note("hm")
    assert len(output.getvalue().splitlines()) == 1000
    assert errors.getvalue() == "# hm\n"


def test_on_a_terminal_the_counter_is_redrawn_in_place() -> None:
    output, errors = Terminal(), Terminal()
    with Screen(Meter(time.monotonic()), output, errors) as screen:
        wait_until(lambda: errors.getvalue().count(CLEAR_LINE) >= 2)
        assert "\n" not in errors.getvalue()
        screen.lines(["one"])
        wait_until(lambda: output.getvalue() == "one\n")
    assert errors.getvalue().endswith("\n")


def test_a_flood_shows_its_newest_lines_and_how_many_it_left_out() -> None:
    terminal = Terminal()
    with Screen(Meter(time.monotonic()), terminal, terminal) as screen:
        for start in range(0, 1000, 100):
            screen.lines([f"line {number}" for number in range(start, start + 100)])
    text = terminal.getvalue()
    assert "line 999\n" in text
    assert text.count("line ") <= 10 * MAX_LINES_PER_DRAW
    assert " more not shown\n" in text


def test_with_output_in_a_file_the_counter_stays_on_the_terminal() -> None:
    output, errors = io.StringIO(), Terminal()
    with Screen(Meter(time.monotonic()), output, errors) as screen:
        screen.lines(["one"])
        assert output.getvalue() == "one\n"
        wait_until(lambda: "events" in errors.getvalue())
    assert output.getvalue() == "one\n"
