"""Keys of kept answers: F6, equal questions share an entry, and different ones never do."""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from handlers.cache_key import key_of, wants_fresh
from handlers.endpoints import Call, Endpoint, Query, Reply
from handlers.paths import arguments_of
from server.rights import ANONYMOUS
from tests.handlers.cache_bench import Search
from tests.handlers.lodge import request


class Wide(Query):
    """Parameters of many kinds."""

    count: int = 5
    share: float = 0.5
    price: Decimal = Decimal(1)
    day: datetime.date | None = None
    exact: bool = False
    hidden: str = Field("", exclude=True)
    cache: str = ""


async def nothing(_: Call) -> Reply:
    return Reply()


SEARCH = Endpoint("GET", "/api/search", nothing, "Search.", Search)
WIDE = Endpoint("GET", "/api/wide", nothing, "Of many kinds.", Wide)
THING = Endpoint("GET", "/api/things/{id}", nothing, "A thing.", Search)


def key(endpoint: Endpoint, path: str, audience: str = "") -> str:
    asked = request(path)
    arguments = arguments_of(endpoint.pattern, asked.path)
    assert arguments is not None
    return key_of(endpoint, endpoint.read(asked, arguments, ANONYMOUS), audience)


def test_a_key_is_a_sha_256_behind_its_prefix() -> None:
    """F6: `http:cache:{hash of request}`."""
    assert re.fullmatch("http:cache:[0-9a-f]{64}", key(SEARCH, "/api/search?lat=6.5244&lon=3.3792&radius=10"))


@pytest.mark.parametrize(
    ("endpoint", "one", "other"),
    [
        (SEARCH, "/api/search?lat=6.50&lon=3", "/api/search?lon=3.0&lat=6.5"),
        (SEARCH, "/api/search?lat=0", "/api/search?lat=-0.0"),
        (SEARCH, "/api/search?lat=6.5", "/api/search?lat=%36.5"),
        (SEARCH, "/api/search?lat=65e-1", "/api/search?lat=+6.5"),
        (SEARCH, "/api/search", "/api/search?radius=50&q="),
        (SEARCH, "/api/search?q=a", "/api/search?q=a&utm_source=mail&authorization=x"),
        (SEARCH, "/api/search?q=a", "/api/search?cache=skip&q=a&bypass_cache=true"),
        (SEARCH, "/api/search?q=a+b", "/api/search?q=a%20b"),
        (SEARCH, "/api/search?q=a", "/api/search?q=%20a%20"),
        (SEARCH, "/api/search?q=a", "/api/search?q=a&q=b"),  # the first counts, for the endpoint as well
        (THING, "/api/things/fac_001", "/api/things/%66ac_001"),
        (WIDE, "/api/wide?price=1.50", "/api/wide?price=1.5"),
        (WIDE, "/api/wide?price=100", "/api/wide?price=1E2"),
        (WIDE, "/api/wide?exact=yes", "/api/wide?exact=true"),
        (WIDE, "/api/wide", "/api/wide?cache=skip"),  # a control stays one when an endpoint declares it
    ],
)
def test_what_means_the_same_has_the_same_key(endpoint: Endpoint, one: str, other: str) -> None:
    """F6: keys are of the normalised request."""
    assert key(endpoint, one) == key(endpoint, other)


@pytest.mark.parametrize(
    ("endpoint", "one", "other"),
    [
        (SEARCH, "/api/search?lat=6.5", "/api/search?lat=6.51"),
        (SEARCH, "/api/search?lat=1&lon=2", "/api/search?lat=2&lon=1"),
        (SEARCH, "/api/search?q=1", "/api/search?q=1.0"),  # texts
        (SEARCH, "/api/search?q=a", "/api/search?q=A"),
        (SEARCH, '/api/search?q=a","x":"', "/api/search?q=a"),
        (THING, "/api/things/1", "/api/things/2"),
        (THING, "/api/things/a%2Fb", "/api/things/a%252Fb"),
        (WIDE, "/api/wide?count=1", "/api/wide?share=1"),
        (WIDE, "/api/wide?hidden=a", "/api/wide?hidden=b"),  # what is not for output is still asked
        (WIDE, "/api/wide?day=2026-01-01", "/api/wide?day=2026-01-02"),
        (WIDE, "/api/wide?exact=true", "/api/wide"),
    ],
)
def test_what_means_another_thing_has_another_key(endpoint: Endpoint, one: str, other: str) -> None:
    assert key(endpoint, one) != key(endpoint, other)


def test_routes_and_audiences_are_apart() -> None:
    other = Endpoint("GET", "/api/find", nothing, "Search.", Search)
    assert key(SEARCH, "/api/search") != key(other, "/api/find")
    assert key(SEARCH, "/api/search") != key(SEARCH, "/api/search", "development")


PLACES = st.floats(-90, 90, allow_nan=False)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
SEARCHES = st.builds(dict, lat=PLACES, lon=PLACES, radius=PLACES, q=TEXTS)
SPELLINGS = st.lists(
    st.sampled_from([repr, "{:.25g}".format, "{:.17e}".format, "+{!r}".format]), min_size=3, max_size=3
)
NOISE = st.lists(st.tuples(st.sampled_from(["cache", "x", "bypass_cache", "LAT", ""]), TEXTS), max_size=3)


def spelled(search: dict[str, Any], spellings: Sequence[Any], noise: list[tuple[str, str]], order: Any) -> str:
    """A search as some client may write it."""
    numbers = zip(("lat", "lon", "radius"), spellings, strict=True)
    pairs = [(name, spell(search[name]).replace("+-", "-")) for name, spell in numbers]
    pairs = order.sample([*pairs, ("q", search["q"])], 4) + noise
    return "/api/search?" + urlencode(pairs, quote_via=quote)


@given(SEARCHES, SPELLINGS, SPELLINGS, NOISE, NOISE, st.randoms(use_true_random=False))
def test_however_a_question_is_spelled_it_has_one_key(
    search: dict[str, Any], one: Any, other: Any, some: Any, more: Any, order: Any
) -> None:
    """F6: order, spelling of numbers, unknown parameters and cache controls make no difference."""
    assert key(SEARCH, spelled(search, one, some, order)) == key(SEARCH, spelled(search, other, more, order))


@given(SEARCHES, SEARCHES, st.data())
def test_keys_are_equal_exactly_if_the_questions_are(one: dict[str, Any], other: dict[str, Any], data: Any) -> None:
    other = {name: data.draw(st.sampled_from([one[name], other[name]])) for name in one}
    keys = [key(SEARCH, "/api/search?" + urlencode(search, quote_via=quote)) for search in (one, other)]
    assert (keys[0] == keys[1]) == (Search.model_validate(one) == Search.model_validate(other))


@pytest.mark.parametrize(
    ("query", "fresh"),
    [
        ("cache=skip", True),
        ("bypass_cache=true", True),
        ("a=b&cache=skip", True),
        ("c%61che=skip", True),
        ("cache=sk%69p", True),
        ("", False),
        ("cache=", False),
        ("cache=use", False),
        ("bypass_cache=false", False),
        ("bypass_cache=1", False),
        ("q=cache=skip", False),
        ("nocache=skip", False),
    ],
)
def test_two_parameters_ask_for_a_fresh_answer(query: str, fresh: bool) -> None:
    """P5."""
    assert wants_fresh(query) == fresh
