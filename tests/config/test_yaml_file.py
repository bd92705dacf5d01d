"""The file's dialect."""

from __future__ import annotations

from pathlib import Path

import pytest

from config import yaml_file
from config.problems import ConfigError


def _read(folder: Path, text: str | bytes) -> dict[str, object]:
    path = folder / "settings.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return yaml_file.read(path)


def test_the_word_off_is_text_and_not_false(tmp_path: Path) -> None:
    assert _read(tmp_path, "sqlite_synchronous: OFF\nconsole: false\n") == {
        "sqlite_synchronous": "OFF",
        "console": False,
    }


def test_numbers_are_decimal_whatever_they_look_like(tmp_path: Path) -> None:
    assert _read(tmp_path, "a: 010\nb: 1_000\nc: 22:30\nd: 1e3\ne: .5\nf: -1\n") == {
        "a": 10,
        "b": 1000,
        "c": "22:30",
        "d": 1000.0,
        "e": 0.5,
        "f": -1,
    }


def test_a_name_that_is_there_twice_is_an_error_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="line 3: port is there twice"):
        _read(tmp_path, "port: 1\nhost: a\nport: 2\n")


@pytest.mark.parametrize(
    "text", ["- a\n", "text\n", "1: 2\n", "a: b: c\n", "a: {\n", "\tport: 1\n", b"\xff\xfe\xff", "a: \x07"]
)
def test_what_is_not_a_mapping_of_names_is_an_error(tmp_path: Path, text: str | bytes) -> None:
    with pytest.raises(ConfigError):
        _read(tmp_path, text)


def test_no_object_can_be_made_by_a_tag(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        _read(tmp_path, "a: !!python/object/apply:os.getpid []\n")


def test_a_file_that_is_not_there_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"file .*none.yaml\): cannot be read: No such file"):
        yaml_file.read(tmp_path / "none.yaml")
