"""Topic selectors: what each kind selects, against a table, an independent regular expression and RFC 6570 expansion.

And that none is slow."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import pytest
import uritemplate
from hypothesis import given
from hypothesis import strategies as st

from server import selectors
from server.selectors import ANY, InvalidSelector, Selector, exact_selector, parse_selector

MATCHES = [
    ("https://e.com/books/{id}", "https://e.com/books/1"),
    ("https://e.com/books/{id}", "https://e.com/books/"),
    ("https://e.com/books/{id}", "https://e.com/books/a,b%20c~"),
    ("https://e.com/books/{id}", "https://e.com/books/{id}"),
    ("https://e.com/books/{id}.json", "https://e.com/books/1.2.json"),
    ("https://e.com/{a}/x/{b}", "https://e.com/1/x/2"),
    ("https://e.com/{+rest}", "https://e.com/a/b?c=d#e"),
    ("{#part}", "#a/b"),
    ("{#part}", ""),
    ("a{?q}", "a?q=1"),
    ("a{?q}", "a"),
    ("a{?q,r}", "a?q=1&r=2"),
    ("a{?q}{&r}", "a&r=2"),
    ("a{?q*}", "a?x=1&y=2&z=3"),
    ("a{;p}", "a;p=1"),
    ("a{.ext}", "a.tar.gz"),
    ("a{/b}", "a/x"),
    ("a{/b,c}", "a/x/y"),
    ("a{/b*}", "a/x/y/z"),
    ("{a}{b}", "xy"),
    ("{a:3}", "longer"),
    ("{+a}x{b}", "x/xy"),
    ("{x}41", "%4141"),
    ("{x}{+y}", "a/b"),
    ("caf\u00e9/{x}", "caf\u00e9/1"),
]
MISSES = [
    ("https://e.com/books/{id}", "https://e.com/books/1/"),
    ("https://e.com/books/{id}", "https://e.com/BOOKS/1"),
    ("https://e.com/books/{id}", "https://e.com/books/a b"),
    ("https://e.com/books/{id}", "https://e.com/books/%4"),
    ("https://e.com/books/{id}", "https://e.com/books/caf\u00e9"),
    ("https://e.com/books/{id}", "https://e.com/books/1\n"),
    ("a{?q}", "a?q=1&r=2"),
    ("a{?q,r}", "a&r=2"),
    ("a{/b}", "a/x/y"),
    ("a{/b,c}", "a/x/y/z"),
    ("a{x}a", "a"),
    ("{x}41", "%41"),
    ("{+x}", "a b"),
]


@pytest.mark.parametrize(("template", "topic"), MATCHES)
def test_a_template_selects_what_it_can_expand_to(template: str, topic: str) -> None:
    assert parse_selector(template).matches(topic)


@pytest.mark.parametrize(("template", "topic"), MISSES)
def test_a_template_selects_nothing_else(template: str, topic: str) -> None:
    assert not parse_selector(template).matches(topic)


def test_dots_are_no_path_navigation_but_plain_characters() -> None:
    assert parse_selector("tenants/{t}/{+rest}").matches("tenants/../../x")
    assert not parse_selector("tenants/{t}").matches("tenants/../x")


INVALID_TEMPLATES = [
    *("{", "}", "{}", "{unclosed", "a}b{c}", "{=x}", "{,x}", "{|x}", "{!x}", "{@x}", "{x y}", "a b{x}"),
    *("{x:0}", "{x:12345}", "{x*:3}", "{a,}", "{a..b}", "{-x}", "<{x}>", "%4{x}", "{%4}"),
]


@pytest.mark.parametrize("text", INVALID_TEMPLATES)
def test_an_invalid_template_is_an_exact_string(text: str) -> None:
    selector = parse_selector(text)
    assert selector.exact
    assert selector == exact_selector(text)
    assert selector.matches(text)
    assert not selector.matches(text.replace("{x}", "1") + "1")


def test_a_star_selects_everything_whichever_way_it_is_read() -> None:
    assert parse_selector("*") == exact_selector("*") == ANY
    assert ANY.any
    assert not ANY.exact
    assert ANY.prefix == ""
    assert ANY.matches("")
    assert ANY.matches("anything at all")


def test_a_star_inside_a_text_is_a_plain_character() -> None:
    assert parse_selector("a/*").exact
    assert not parse_selector("a/*").matches("a/b")


def test_an_exact_selector_compares_every_byte() -> None:
    selector = exact_selector("items/{id}")
    assert selector.exact
    assert selector.matches("items/{id}")
    for other in ("items/1", "Items/{id}", "items/{id} ", "items/{id}."):
        assert not selector.matches(other)
    assert not exact_selector("caf\u00e9").matches("cafe\u0301")


def test_selectors_are_equal_by_text_and_kind() -> None:
    assert parse_selector("a/{x}") == parse_selector("a/{x}")
    assert hash(parse_selector("a/{x}")) == hash(parse_selector("a/{x}"))
    assert parse_selector("a/{x}") != exact_selector("a/{x}")
    assert parse_selector("a/{x}") != parse_selector("a/{y}")
    assert parse_selector("plain") == exact_selector("plain")


@pytest.mark.parametrize(
    ("text", "prefix"), [("a/{x}/b", "a/"), ("{x}", ""), ("plain", "plain"), ("{", "{"), ("*", "")]
)
def test_the_prefix_is_what_stands_before_the_first_expression(text: str, prefix: str) -> None:
    assert parse_selector(text).prefix == prefix


@pytest.mark.parametrize(
    "text",
    ["", "a\nb", "a\x00", "\x7f", "\x85", "\u200b", "\u202e{x}", "\ufeff", "\ud800", "x" * 4097, "\u00e9" * 2049],
)
@pytest.mark.parametrize("make", [parse_selector, exact_selector])
def test_an_unsafe_empty_or_oversized_text_is_refused(make: Callable[[str], Selector], text: str) -> None:
    with pytest.raises(InvalidSelector) as refused:
        make(text)
    assert refused.value.reason.startswith("must")


def test_a_text_of_exactly_the_limit_is_accepted() -> None:
    assert parse_selector("x" * 4096).exact
    assert exact_selector("\u00e9" * 2048).exact


@pytest.mark.parametrize(
    ("text", "size"), [("a/{x}/b", 5), ("{x}", 3), ("é/{é}", 0), ("é/{x}é", 5), ("plain", 0), ("*", 0), ("{", 0)]
)
def test_the_pattern_of_a_template_is_counted_from_its_first_expression(text: str, size: int) -> None:
    assert parse_selector(text).pattern_bytes == size


def test_selectors_are_slotted() -> None:
    assert not hasattr(parse_selector("{x}"), "__dict__")


# One operator's row of RFC 6570, appendix A: (operator, first, separator, named, reserved characters too)
OPERATORS = [
    ("", "", ",", False, False),
    ("+", "", ",", False, True),
    ("#", "#", ",", False, True),
    (".", ".", ".", False, False),
    ("/", "/", "/", False, False),
    (";", ";", ";", True, False),
    ("?", "?", "&", True, False),
    ("&", "&", "&", True, False),
]
Part = tuple[str, str]  # what stands in the template, and the regular expression it means


def _expression(row: tuple[str, str, str, bool, bool], exploded: list[bool]) -> Part:
    operator, first, separator, named, reserved = row
    plain = r"A-Za-z0-9\-._~," + (r":/?#\[\]@!$&'()*+;=" if reserved else "") + ("=" if named or any(exploded) else "")
    run = f"(?:[{plain}]|%[0-9A-Fa-f]{{2}})*"
    more = "*" if any(exploded) else f"{{0,{len(exploded) - 1}}}"
    names = ",".join(f"v{number}" + "*" * explode for number, explode in enumerate(exploded))
    return f"{{{operator}{names}}}", f"(?:{re.escape(first)}{run}(?:{re.escape(separator)}{run}){more})?"


LITERALS = (
    st.text("ab/%?&;,.#=", min_size=1, max_size=3)
    .filter(lambda text: "%" not in text)
    .map(lambda text: (text, re.escape(text)))
)
EXPRESSIONS = st.builds(_expression, st.sampled_from(OPERATORS), st.lists(st.booleans(), min_size=1, max_size=3))
TEMPLATES = st.lists(LITERALS | EXPRESSIONS, min_size=1, max_size=5)
TOPICS = st.lists(st.sampled_from([*"ab/?&;,.#=", "%41", "%", "4", "\u00e9", " "]), max_size=8).map("".join)


@given(TEMPLATES, TOPICS)
def test_matching_agrees_with_a_regular_expression(parts: list[Part], topic: str) -> None:
    template = "".join(text for text, _ in parts)
    expected = topic == template or re.fullmatch("".join(pattern for _, pattern in parts), topic) is not None
    selector = parse_selector(template)
    assert selector.matches(topic) == expected
    assert not expected or topic.startswith(selector.prefix)


@given(TEMPLATES, TOPICS)
def test_a_long_topic_is_matched_as_a_short_one(parts: list[Part], topic: str) -> None:
    selector = parse_selector("".join(text for text, _ in parts))
    short = selector.matches(topic)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selectors, "_WALKED_CHARACTERS", -1)
        assert selector.matches(topic) == short


VALUES = (
    st.none()
    | st.text(max_size=6)
    | st.lists(st.text(max_size=4), max_size=3)
    | st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=3)
)


@given(TEMPLATES, st.lists(VALUES, min_size=3, max_size=3))
def test_every_expansion_of_a_template_matches_it(parts: list[Part], values: list[Any]) -> None:
    template = "".join(text for text, _ in parts)
    topic = uritemplate.expand(template, {f"v{number}": value for number, value in enumerate(values)})
    assert parse_selector(template).matches(topic), topic


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_text_is_a_selector_that_selects_itself_or_is_refused(text: str, topic: str) -> None:
    try:
        selector = parse_selector(text)
    except InvalidSelector:
        return
    assert selector.matches(text)
    if selector.matches(topic):
        assert topic.startswith(selector.prefix)


def _repeated(piece: str) -> str:
    return (piece * 4096)[: 4096 // len(piece) * len(piece)]


HOSTILE = [
    (_repeated("{a}x"), "x" * 4095 + "/"),
    (_repeated("{a}x"), "x" * 4096),
    (_repeated("{+a}x"), "x" * 4095 + "y"),
    (_repeated("{a}{+b}"), "x" * 4095 + " "),
    (_repeated("{/a*}"), "/" * 4095 + " "),
    (_repeated("{?a,b}{&c}"), "?&" * 2047 + " "),
    ("{/" + ",".join("a" * 2040) + "}z", "/" * 4095 + "z"),
    ("{+a}" + "x" * 4092, "x" * 4095 + "y"),
    (_repeated("{+a}%41"), "%41" * 1365),
    (_repeated("{x"), "{x" * 2047 + "y"),
    ("{" + "a." * 2000 + "}", "a" * 4096),
    ("{" + "a," * 2000 + "}", "a" * 4096),
]


@pytest.mark.parametrize(("template", "topic"), HOSTILE)
def test_the_worst_template_against_the_worst_topic_takes_milliseconds(template: str, topic: str) -> None:
    best = 1.0
    for _ in range(5):
        start = time.perf_counter()
        parse_selector(template).matches(topic)
        best = min(best, time.perf_counter() - start)
    # Typically 1 to 2 ms, parsing included; a matcher that backtracks would take longer than the universe has.
    assert best < 0.05


@pytest.mark.parametrize(
    "topic",
    ["x" * 4095 + "!", "%41" * 1365, "/" * 4095 + "!", "x.y" * 1365],
    ids=["letters", "escapes", "paths", "dots"],
)
def test_many_templates_find_out_once_what_a_long_topic_is_like(topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(selectors, "_walk")  # which finds it out each time
    selectors._bits_of.cache_clear()
    for number in range(100):
        for template in ("{a%d}", "{a%d}.{b}", "{+a%d}x{b}"):
            parse_selector(template % number).matches(topic)
    assert selectors._bits_of.cache_info().misses == 1
