"""Rights: what the claims of a token grant, and which claims spoil it."""

from __future__ import annotations

from typing import Any

import pytest

from server.auth import Principal
from server.rights import DEVELOPMENT, EVERYTHING, NOTHING, Rights
from server.selectors import parse_selector
from tests.server.forging import (
    ALL,
    HEADER,
    NOW,
    assert_bad_token,
    authenticator,
    bearing,
    forged,
)


def principal(claims: dict[str, Any]) -> Principal:
    return authenticator().authenticate(bearing(forged(HEADER, claims)))


def test_the_mercure_claim_grants_channel_main_alone() -> None:
    who = principal(
        {"sub": "shop-7", "exp": NOW + 60, "mercure": {"publish": ["a/{x}"], "subscribe": ["b"], "payload": 1}}
    )
    assert (who.subject, who.expires, who.operate) == ("shop-7", NOW + 60, False)
    assert who.rights("main") == Rights((parse_selector("a/{x}"),), (parse_selector("b"),))
    assert who.rights("prices") == NOTHING


def test_the_ringcast_claim_grants_other_channels_by_name() -> None:
    who = principal(
        {"ringcast": {"prices": {"publish": ["*"]}, "jobs": {}, "main": {"subscribe": ["*"]}, "operate": True}}
    )
    assert who.operate
    assert who.rights("prices").may_publish(["anything"])
    assert who.rights("prices").subscribe == ()
    assert who.rights("jobs") == NOTHING
    assert who.rights("main").subscribe == EVERYTHING.subscribe


def test_the_namespaced_mercure_claim_counts_before_the_plain_one() -> None:
    assert principal({"https://mercure.rocks/": ALL}).rights("main") == EVERYTHING
    assert principal({"https://mercure.rocks/": {}, "mercure": ALL}).rights("main") == NOTHING


def test_publishing_needs_a_grant_for_every_topic() -> None:
    rights = principal({"mercure": {"publish": ["a", "b/{x}"]}}).rights("main")
    assert rights.may_publish(["a"])
    assert rights.may_publish(["a", "b/1"])
    assert not rights.may_publish(["a", "c"])
    assert not rights.may_publish([])
    assert EVERYTHING.may_publish([])
    assert not NOTHING.may_publish([])
    assert not NOTHING.may_publish(["a"])


@pytest.mark.parametrize(
    "claims",
    [
        {"mercure": value}
        for value in (
            None,
            [],
            "x",
            1,
            {"publish": "*"},
            {"publish": [1]},
            {"subscribe": [None]},
            {"publish": {"*": 1}},
        )
    ]
    + [{"mercure": {"publish": [text]}} for text in ("", "a\n", "\u200b", "x" * 4097)]
    + [
        {"mercure": {"publish": ["a"] * 101}},
        {"mercure": {"publish": ["a"] * 60}, "ringcast": {"b": {"subscribe": ["a"] * 41}}},
    ]
    + [
        {"ringcast": value}
        for value in (None, [], {"operate": 1}, {"operate": "true"}, {"Bad": {}}, {"a/b": {}}, {"a": []}, {"a": None})
    ]
    + [{"sub": value} for value in (None, 1, [], "a\nb", "\u202e", "x" * 257)],
)
def test_malformed_claims_spoil_the_token(claims: dict[str, Any]) -> None:
    assert_bad_token(authenticator(), forged(HEADER, claims))


def test_tokens_of_one_subject_are_one_publisher_and_others_each_their_own() -> None:
    shop, again, other = (principal({"sub": name, "exp": NOW + age}) for name, age in (("a", 1), ("a", 2), ("b", 1)))
    assert shop.scope == again.scope != other.scope
    nobody, else_ = (principal({"exp": NOW + age}) for age in (1, 2))
    assert len({nobody.scope, else_.scope, other.scope, DEVELOPMENT.scope}) == 4
    assert principal({"exp": NOW + 1}).scope == nobody.scope
    posing = principal({"sub": nobody.scope.removeprefix("token ")})
    assert posing.scope != nobody.scope != principal({"sub": nobody.scope}).scope


def test_what_tells_publishers_apart_holds_nothing_of_their_tokens() -> None:
    text = forged(HEADER, {"exp": NOW + 60})
    scope = authenticator().authenticate(bearing(text)).scope
    assert len(scope) < 50
    assert not any(part[:8] in scope for part in text.split("."))


def test_a_hundred_selectors_are_accepted() -> None:
    assert len(principal({"mercure": {"publish": ["a"] * 100}}).rights("main").publish) == 100
