"""Log lines: one line each, whatever strangers sent."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from server.logs import MAX_VALUE_CHARACTERS, configure, get_logger, neutral


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = structlog.get_config()
    yield
    structlog.configure(**before)


def written(log_format: str = "json", level: str = "info", stream: io.StringIO | None = None) -> io.StringIO:
    out = stream or io.StringIO()
    configure(log_format, level, out)
    return out


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@given(st.text())
def test_what_is_written_is_one_line_of_bounded_length_without_controls(text: str) -> None:
    out = neutral(text)
    assert len(out) <= 10 * (MAX_VALUE_CHARACTERS + 1)
    assert len(out.splitlines()) <= 1
    assert not set(out) & set("\x00\x1b\x7f\x9b\n\r\u2028\u2029\u202e\u200b")
    out.encode()


@pytest.mark.parametrize(
    ("text", "out"),
    [
        ("plain é 1", "plain é 1"),
        ("a\nb", r"a\nb"),
        ("\x1b[31m", r"\x1b[31m"),
        ("\u202egnp", r"\u202egnp"),
        ("\ud800", r"\ud800"),
        ("\0", r"\x00"),
        ("x" * 300, "x" * 256 + "…"),
        ("x" * 256, "x" * 256),
    ],
)
def test_controls_are_written_as_escapes_and_long_values_cut(text: str, out: str) -> None:
    assert neutral(text) == out


def test_a_line_is_json_with_part_event_level_and_time() -> None:
    out = written()
    get_logger("door").info("accepted", remote="192.0.2.1", count=3)
    facts = json.loads(out.getvalue())
    assert facts.pop("timestamp").endswith("Z")
    assert facts == {"part": "door", "event": "accepted", "level": "info", "remote": "192.0.2.1", "count": 3}


def test_a_strangers_text_forges_no_line() -> None:
    out = written()
    get_logger("door").warning("odd", path='/\n{"event":"forged"}\x1b[2J')
    [line] = out.getvalue().splitlines()
    assert json.loads(line)["path"] == r"/\n" + '{"event":"forged"}' + r"\x1b[2J"


def test_an_exception_is_told_in_one_line() -> None:
    out = written()
    try:
        raise ValueError("broken\nin two")
    except ValueError:
        get_logger("door").exception("failed")
    [line] = out.getvalue().splitlines()
    assert "broken" in json.loads(line)["exception"]


def test_lines_below_the_level_are_not_written() -> None:
    out = written(level="warning")
    get_logger("door").info("quiet")
    get_logger("door").warning("loud")
    assert [json.loads(line)["event"] for line in out.getvalue().splitlines()] == ["loud"]


def test_on_a_terminal_lines_are_for_people_unless_json_is_asked_for() -> None:
    for log_format, is_json in (("auto", False), ("json", True), ("console", False)):
        out = written(log_format, stream=Terminal())
        get_logger("door").info("accepted")
        assert out.getvalue().startswith("{") is is_json
    assert written("console").getvalue() == ""


def test_a_strangers_text_drives_no_terminal_either() -> None:
    out = written("console")
    get_logger("door").info("odd", path="\x1b[2J\n")
    assert "\x1b" not in out.getvalue()
    assert out.getvalue().count("\n") == 1


def test_values_of_any_kind_can_be_written() -> None:
    out = written()
    get_logger("door").info("odd", value=object(), raw=b"\xff", nothing=None)
    assert json.loads(out.getvalue())["nothing"] is None
