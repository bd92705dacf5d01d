"""Parts of the protocol that Ringcast does not take part in: each has a defined answer, so that a client can tell."""

from __future__ import annotations

import time

import jwt
import pytest

from tests.harness.process import TOKEN_SECRET
from tests.mercure.hub import FORM, PATH, Hub, token

DETAILS = [
    {
        "type": "https://mercure.rocks/authorization-detail",
        "actions": ["publish", "subscribe"],
        "topics": [{"match": "*"}],
    }
]


def test_the_query_method_is_not_there(hub: Hub, topic: str) -> None:
    """R3: 405 with `Allow`, as for any other method."""
    status, headers, _ = hub.node.request("QUERY", PATH, f"match={topic}", Content_Type=FORM)
    assert status == 405
    assert "QUERY" not in headers["allow"]


def test_url_patterns_are_refused(hub: Hub, topic: str) -> None:
    """S1: `match_urlpattern` is 400; a reader must not believe that it filters."""
    answer = hub.get([("match_urlpattern", "https://example.com/*"), ("match", topic)])
    assert (answer.status, answer.error["code"]) == (400, "bad_request")


@pytest.mark.parametrize("kind", ["at+jwt", "application/at+jwt", "AT+JWT"])
def test_draft_08_tokens_grant_nothing(keyed_hub: Hub, topic: str, kind: str) -> None:
    """A4, A6, A8, A9, A10: rights are read from the claims of docs/protocol.md alone."""
    claims = {
        "iss": "https://issuer.example",
        "aud": "https://hub.example",
        "exp": int(time.time()) + 60,
        "authorization_details": DETAILS,
    }
    modern = {"Authorization": f"Bearer {jwt.encode(claims, TOKEN_SECRET, 'HS256', headers={'typ': kind})}"}
    assert keyed_hub.offer([("topic", topic)], **modern).status in (401, 403)
    assert keyed_hub.subscribe([("topic", topic)], **modern).status in (200, 401)


def test_foreign_claims_beside_the_known_one_do_no_harm(keyed_hub: Hub, topic: str) -> None:
    """A8: a token for both worlds is judged by the claim that is known here."""
    both = token(publish=["*"], authorization_details=DETAILS)
    assert keyed_hub.offer([("topic", topic)], Authorization=f"Bearer {both}").status == 200


def test_the_new_cookie_is_not_read(keyed_hub: Hub, topic: str) -> None:
    """A1: `__Secure-mercure_access_token` is a draft-08 token's."""
    assert (
        keyed_hub.get([("topic", topic)], Cookie=f"__Secure-mercure_access_token={token(subscribe=['*'])}").status
        == 401
    )


@pytest.mark.parametrize(
    "path", ["/.well-known/oauth-protected-resource", "/.well-known/oauth-protected-resource/.well-known/mercure"]
)
def test_there_is_no_metadata(hub: Hub, path: str) -> None:
    """R6, 1.7: 404, which tells a client that this is not a hub of draft-08's authorisation."""
    assert hub.get("", path=path).status == 404


@pytest.mark.parametrize(
    "tail", ["", "/a", "/a/b", "/match/a/b", "/match_exact/https%3A%2F%2Fexample.com/urn%3Auuid%3A1"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_there_are_no_active_subscriptions(hub: Hub, tail: str, method: str) -> None:
    """R7, U5, U6, U7, U8: 404 for everybody."""
    assert hub.node.request(method, f"{PATH}/subscriptions{tail}", b"" if method == "POST" else None)[0] == 404


def test_nobodys_coming_is_announced(hub: Hub, topic: str) -> None:
    """U1, U2, U3, U4: a subscriber of everything hears of no subscriber."""
    watch = hub.watch([("topic", "*")])
    hub.subscribe([("topic", topic)]).close()
    assert [event for event in watch.events() if event.type == "mercure" or topic in (event.data or "")] == []


def test_any_host_is_served(keyed_hub: Hub, topic: str) -> None:
    """R8: there is no list of public origins for `Host`; the proxy in front has it. (Without a key there is one: it is
    this machine.)
    """
    assert keyed_hub.offer([("topic", topic)], Host="hub.example").status == 200


def test_a_response_names_no_topics(hub: Hub, topic: str) -> None:
    """1.7: discovery is the publisher's; the hub's own answers carry no `Link`."""
    assert "link" not in hub.subscribe([("topic", topic)]).headers
