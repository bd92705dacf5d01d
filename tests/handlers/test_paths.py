"""Paths with arguments: what a template matches, and what the arguments are."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.paths import arguments_of, pattern_of

THING = pattern_of("/api/things/{id}")
PART = pattern_of("/api/things/{thing_id}/parts/{part}")


@pytest.mark.parametrize(
    ("path", "argument"),
    [
        ("/api/things/1", "1"),
        ("/api/things/fac_001", "fac_001"),
        ("/api/things/a%20b", "a b"),
        ("/api/things/a+b", "a+b"),  # a plus is a space in queries alone
        ("/api/things/a%2Fb", "a/b"),
        ("/api/things/%C3%A9", "é"),
        ("/api/things/%25", "%"),
        ("/api/things/100%", "100%"),
        ("/api/things/..", ".."),
        ("/api/things/%2e%2e", ".."),
        ("/api/things/%0A", "\n"),
        ("/api/things/a;b=c", "a;b=c"),
        ("/api/things/{id}", "{id}"),
    ],
)
def test_an_argument_is_one_segment_decoded(path: str, argument: str) -> None:
    assert arguments_of(THING, path) == {"id": argument}


@pytest.mark.parametrize(
    "path",
    ["/api/things/", "/api/things", "/api/things/1/", "/api/things/1/2", "//api/things/1",
     "/API/things/1", "/api/%74hings/1", "/api/things//", "/api/things/%00", "", "/"],
)  # fmt: skip
def test_any_other_path_does_not_match(path: str) -> None:
    assert arguments_of(THING, path) is None


@pytest.mark.parametrize("path", ["/api/things/%ff", "/api/things/%C3", "/api/things/%C0%AF", "/api/things/%ED%A0%80"])
def test_what_is_not_utf_8_is_nothing(path: str) -> None:
    assert arguments_of(THING, path) is None


def test_a_template_may_have_several_arguments() -> None:
    assert arguments_of(PART, "/api/things/1/parts/a%2Fb") == {"thing_id": "1", "part": "a/b"}
    assert arguments_of(PART, "/api/things/1/parts/") is None


@pytest.mark.parametrize(("template", "path"), [("/a.b/{id}", "/aXb/1"), ("/a+/{id}", "/aa/1"), ("/(a)/{id}", "/a/1")])
def test_fixed_parts_are_no_patterns(template: str, path: str) -> None:
    assert arguments_of(pattern_of(template), path) is None


def test_a_path_without_arguments_is_itself() -> None:
    assert arguments_of(pattern_of("/api/things"), "/api/things") == {}


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20))
def test_whatever_is_quoted_is_what_comes_out(text: str) -> None:
    assert arguments_of(THING, "/api/things/" + quote(text, safe="")) == {"id": text}
