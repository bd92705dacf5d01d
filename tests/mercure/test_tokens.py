"""Who may do what: rows A1 to A16 as far as draft-07 tokens go; claims and selectors are those of row 1.11."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import jwt
import pytest

from tests.harness.process import ROOT, TOKEN_SECRET, free_port
from tests.mercure.hub import ORIGIN, Answer, Hub, token

WRITER = token(publish=["*"])


def part(content: bytes) -> str:
    """One part of a token."""
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def signed(header: dict[str, object], claims: object, digest: str = "sha256") -> str:
    """A token put together by hand and signed with the server's own secret, so that only its content is wrong."""
    text = f"{part(json.dumps(header).encode())}.{part(json.dumps(claims).encode())}"
    return f"{text}.{part(hmac.new(TOKEN_SECRET.encode(), text.encode(), getattr(hashlib, digest)).digest())}"


def publish_with(hub: Hub, topic: str, **headers: str) -> Answer:
    """A publish that presents exactly these credentials."""
    return Hub(hub.node).offer([("topic", topic)], **headers)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR"])
def test_the_bearer_scheme_has_no_case(keyed_hub: Hub, topic: str, scheme: str) -> None:
    """A1: as all schemes of HTTP."""
    assert publish_with(keyed_hub, topic, Authorization=f"{scheme} {WRITER}").status == 200


@pytest.mark.parametrize(
    "value", ["Bearer", "Bearer ", f"Bearer {WRITER} {WRITER}", f"Bearer {WRITER}, Bearer {WRITER}", "Bearer a b"]
)
def test_a_malformed_authorization_header_is_refused(keyed_hub: Hub, topic: str, value: str) -> None:
    """A1: 400 `invalid_request`, on both methods."""
    for answer in (
        publish_with(keyed_hub, topic, Authorization=value),
        keyed_hub.get([("topic", topic)], Authorization=value),
    ):
        assert answer.status == 400, answer
        assert 'error="invalid_request"' in answer.headers["www-authenticate"]


@pytest.mark.parametrize(
    "value", [f"Basic {WRITER}", WRITER, f"Token {WRITER}", f"Bearer\t\t{WRITER}x", f"Bearer={WRITER}"]
)
def test_nothing_but_a_bearer_token_opens_the_door(keyed_hub: Hub, topic: str, value: str) -> None:
    """A1: another scheme is no token, or a malformed one."""
    assert publish_with(keyed_hub, topic, Authorization=value).status in (400, 401)
    assert keyed_hub.get([("topic", topic)], Authorization=value).status in (400, 401)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_two_authorization_headers_are_refused(keyed_hub: Hub, topic: str, method: str) -> None:
    """A1: 400, even if both hold one good token."""
    connection = http.client.HTTPConnection("127.0.0.1", keyed_hub.node.port, timeout=5)
    connection.putrequest(method, f"/.well-known/mercure?topic={topic}")
    for _ in range(2):
        connection.putheader("Authorization", f"Bearer {token(publish=['*'], subscribe=['*'])}")
    connection.putheader("Content-Type", "application/x-www-form-urlencoded")
    connection.putheader("Content-Length", "7")
    connection.endheaders(b"topic=a")
    answer = connection.getresponse()
    assert answer.status == 400
    assert 'error="invalid_request"' in (answer.getheader("WWW-Authenticate") or "")
    connection.close()


def test_the_header_beats_the_cookie_and_the_cookie_the_query(keyed_hub: Hub, topic: str) -> None:
    """A1: the first that is present counts, and a bad one is not forgiven for a good one after it."""
    good, bad = token(subscribe=[topic]), "not.a.token"
    query = [("topic", topic)]
    assert (
        keyed_hub.subscribe(query, Authorization=f"Bearer {good}", Cookie=f"mercureAuthorization={bad}").status == 200
    )
    assert keyed_hub.get(query, Authorization=f"Bearer {bad}aaaa", Cookie=f"mercureAuthorization={good}").status == 401
    assert keyed_hub.subscribe([*query, ("authorization", bad)], Cookie=f"mercureAuthorization={good}").status == 200
    assert keyed_hub.get([*query, ("authorization", good)], Cookie=f"mercureAuthorization={bad}").status == 401


def test_a_cookie_opens_a_private_stream(keyed_hub: Hub, topic: str) -> None:
    """A1: as a browser's EventSource brings it, among others."""
    watch = keyed_hub.watch([("topic", topic)], Cookie=f"a=b; mercureAuthorization={token(subscribe=[topic])}; c=d")
    keyed_hub.publish(topic, "secret", private="on")
    assert watch.data() == ["secret"]


def test_a_token_in_the_query_is_the_old_name_alone(keyed_hub: Hub, topic: str) -> None:
    """A2: `authorization` is draft-07's and is read; `access_token` is nobody's."""
    good = token(subscribe=[topic])
    assert keyed_hub.subscribe([("topic", topic), ("authorization", good)]).status == 200
    assert keyed_hub.get([("topic", topic), ("access_token", good)]).status == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": ORIGIN}, {200}),
        ({"Referer": f"{ORIGIN}/page?x=1"}, {200}),
        ({"Origin": "https://evil.example"}, {403}),
        ({"Origin": "https://evil.example", "Referer": f"{ORIGIN}/"}, {403}),
        ({"Origin": "null"}, {403}),
        ({"Referer": "https://evil.example/"}, {400, 403}),
        ({"Referer": f"https://evil.example/{ORIGIN}"}, {400, 403}),
        ({"Referer": f"{ORIGIN}.evil.example/"}, {400, 403}),
        ({"Referer": "nonsense"}, {400, 403}),
        ({}, {400, 403}),
    ],
)
def test_a_cookie_publishes_only_from_an_allowed_page(
    public_hub: Hub, topic: str, headers: dict[str, str], status: set[int]
) -> None:
    """A3: a page elsewhere can make a browser send the cookie; `Origin` counts before `Referer`, and one of them must
    be there.
    """
    watch = public_hub.watch([("topic", topic)])
    answer = publish_with(public_hub, topic, Cookie=f"mercureAuthorization={WRITER}", **headers)
    assert answer.status in status, answer
    assert len(watch.data()) == (answer.status == 200)


ALL = {"publish": ["*"], "subscribe": ["*"]}

BAD_TOKENS = {
    "garbage": "garbage",
    "three parts of garbage": "a.b.c",
    "short": "e30.e30.e30",
    "another secret": token(**ALL, secret="another secret of at least thirty-two bytes"),
    "no algorithm": signed({"alg": "none", "typ": "JWT"}, {"mercure": ALL}).rpartition(".")[0] + ".",
    "no algorithm but a signature": signed({"alg": "none"}, {"mercure": ALL}),
    "no algorithm in other letters": signed({"alg": "nOnE"}, {"mercure": ALL}),
    "no header field at all": signed({}, {"mercure": ALL}),
    "empty signature": WRITER.rpartition(".")[0] + ".",
    "another algorithm": signed({"alg": "HS512"}, {"mercure": ALL}, "sha512"),
    "an algorithm with a public key": signed({"alg": "RS256"}, {"mercure": ALL}),
    "its own key": jwt.encode(
        {"mercure": ALL}, "k" * 32, "HS256", headers={"jwk": {"kty": "oct", "k": part(b"k" * 32)}}
    ),
    "expired": token(**ALL, exp=1_000_000_000),
    "not yet": token(**ALL, nbf=4_000_000_000),
    "exp is a text": signed({"alg": "HS256"}, {"mercure": ALL, "exp": "soon"}),
    "exp is not finite": signed({"alg": "HS256"}, {"mercure": ALL, "exp": float("nan")}),
    "exp is a list": signed({"alg": "HS256"}, {"mercure": ALL, "exp": [4_000_000_000]}),
    "unknown critical header": signed({"alg": "HS256", "crit": ["x"], "x": 1}, {"mercure": ALL}),
    "claims are a list": signed({"alg": "HS256"}, [{"mercure": ALL}]),
    "claims are a text": signed({"alg": "HS256"}, "mercure"),
}

MALFORMED_RIGHTS = [
    "publish",
    ["*"],
    {"publish": "*"},
    {"publish": {"*": True}},
    {"publish": [1]},
    {"publish": [["*"]]},
    {"publish": [None]},
    None,
    1,
]


@pytest.mark.parametrize("bad", BAD_TOKENS.values(), ids=BAD_TOKENS.keys())
def test_a_bad_token_is_refused_in_one_way(keyed_hub: Hub, topic: str, bad: str) -> None:
    """A5, A7, A14: 401 with one code for every reason, on both methods."""
    bodies = set()
    for answer in (
        publish_with(keyed_hub, topic, Authorization=f"Bearer {bad}"),
        keyed_hub.get([("topic", topic)], Authorization=f"Bearer {bad}"),
    ):
        assert answer.status == 401, answer
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert 'error="invalid_token"' in answer.headers["www-authenticate"]
        bodies.add(answer.error["code"])
    assert bodies == {"unauthorized"}


@pytest.mark.parametrize("rights", MALFORMED_RIGHTS, ids=str)
def test_malformed_rights_grant_nothing(keyed_hub: Hub, topic: str, rights: object) -> None:
    """A9: draft-07's claim is an object of lists of texts; anything else is a bad token or one without rights, never a
    fault of the server.
    """
    bad = {"Authorization": f"Bearer {signed({'alg': 'HS256'}, {'mercure': rights})}"}
    assert publish_with(keyed_hub, topic, **bad).status in (401, 403)
    assert keyed_hub.subscribe([("topic", topic)], **bad).status in (200, 401)


def test_the_reason_of_a_bad_token_is_not_told(keyed_hub: Hub) -> None:
    """A14: expired, forged and garbled look alike."""
    names = ["garbage", "another secret", "no algorithm", "expired", "not yet"]
    assert len({keyed_hub.get("topic=a", Authorization=f"Bearer {BAD_TOKENS[name]}").body for name in names}) == 1


def test_a_key_id_is_only_a_hint(keyed_hub: Hub, topic: str) -> None:
    """A5: a token that names an unknown key is judged by the one there is."""
    named = jwt.encode({"mercure": {"publish": ["*"]}}, TOKEN_SECRET, "HS256", headers={"kid": "another-key"})
    assert publish_with(keyed_hub, topic, Authorization=f"Bearer {named}").status == 200


@pytest.mark.parametrize("name", ["jku", "x5u"])
def test_an_address_in_a_token_is_not_followed(keyed_hub: Hub, topic: str, name: str) -> None:
    """A5: nobody calls there, for a token that is good otherwise and for a forged one."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        for secret in (TOKEN_SECRET, "another secret of at least thirty-two bytes"):
            named = jwt.encode({"mercure": {"publish": ["*"]}}, secret, "HS256", headers={name: address})
            answer = publish_with(keyed_hub, topic, Authorization=f"Bearer {named}")
            assert answer.status == 401 or (answer.status, secret) == (200, TOKEN_SECRET)
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"exp": int(time.time()) + 3600},
        {"exp": time.time() + 3600.5},
        {"aud": "https://hub.example/.well-known/mercure"},
        {"aud": ["a", "b"], "iss": "https://issuer.example"},
        {"iat": int(time.time()) + 60},
        {"iat": time.time() + 0.5},
        {"jti": 42},
    ],
    ids=lambda claims: " and ".join(claims) or "none",
)
def test_claims_that_draft_07_does_not_know_are_not_judged(
    keyed_hub: Hub, topic: str, claims: dict[str, object]
) -> None:
    """A7: without `exp`, with any `aud`, `iss`, `iat`, `sub` or `jti`, a signed token is good."""
    assert (
        publish_with(
            keyed_hub,
            topic,
            Authorization=f"Bearer {jwt.encode({'mercure': {'publish': ['*']}} | claims, TOKEN_SECRET, 'HS256')}",
        ).status
        == 200
    )


@pytest.mark.parametrize("private", [{}, {"private": "on"}])
def test_every_topic_of_an_event_must_be_granted(keyed_hub: Hub, topic: str, private: dict[str, str]) -> None:
    """A11: alternates too, public events too; otherwise nothing is dispatched."""
    watch = keyed_hub.watch(
        [("topic", topic), ("topic", f"{topic}/b")], Authorization=f"Bearer {token(subscribe=['*'])}"
    )
    writer = {"Authorization": f"Bearer {token(publish=[topic, f'{topic}/a'])}"}
    answer = keyed_hub.offer([("topic", topic), ("topic", f"{topic}/b"), *private.items()], **writer)
    assert (answer.status, answer.error["code"]) == (403, "forbidden")
    assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]
    assert (
        keyed_hub.offer(
            [("topic", topic), ("topic", f"{topic}/a"), ("data", "granted"), *private.items()], **writer
        ).status
        == 200
    )
    assert watch.data() == ["granted"]


@pytest.mark.parametrize("rights", [{}, {"publish": []}, {"subscribe": ["*"]}])
def test_a_token_without_the_right_to_publish_is_refused(
    keyed_hub: Hub, topic: str, rights: dict[str, list[str]]
) -> None:
    """A11: 403, the token itself is good."""
    assert publish_with(keyed_hub, topic, Authorization=f"Bearer {token(**rights)}").status == 403


@pytest.mark.parametrize(
    "selector",
    ["{topic}", "{topic}{{?rest}}", "https://example.com/things/{{id}}", "https://example.com/{{+rest}}", "*"],
)
def test_a_grant_is_a_selector(keyed_hub: Hub, topic: str, selector: str) -> None:
    """A11, 1.11: exact, a template or everything."""
    assert (
        publish_with(keyed_hub, topic, Authorization=f"Bearer {token(publish=[selector.format(topic=topic)])}").status
        == 200
    )


@pytest.mark.parametrize(
    "rights", [{}, {"subscribe": []}, {"publish": ["*"]}, {"subscribe": ["https://elsewhere.example/"]}]
)
def test_a_token_without_grants_opens_the_stream(keyed_hub: Hub, topic: str, rights: dict[str, list[str]]) -> None:
    """A12: no grants is no error; only public events come."""
    watch = keyed_hub.watch([("topic", topic)], Authorization=f"Bearer {token(**rights)}")
    keyed_hub.publish(topic, "secret", private="on")
    keyed_hub.publish(topic, "open")
    assert watch.data() == ["open"]


def test_without_a_token_the_challenge_has_no_error(keyed_hub: Hub, topic: str) -> None:
    """A13: 401, on both methods."""
    for answer in (publish_with(keyed_hub, topic), keyed_hub.get([("topic", topic)])):
        assert answer.status == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert "error" not in answer.headers["www-authenticate"]
        assert "no-store" in answer.headers["cache-control"]


def test_nobody_publishes_without_a_token_where_anybody_reads(public_hub: Hub, topic: str) -> None:
    """A13: `anonymous` is about reading."""
    assert publish_with(public_hub, topic).status == 401


def test_other_faults_bring_no_challenge(keyed_hub: Hub, topic: str) -> None:
    """A15: a bad field is not a matter of rights."""
    assert "www-authenticate" not in keyed_hub.offer([("topic", topic), ("retry", "x")]).headers


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_without_a_key_the_server_stays_on_the_loopback_interface(tmp_path: Path, host: str) -> None:
    """A16: it refuses to start anywhere else, and says why."""
    env = {"RINGCAST_HOST": host, "RINGCAST_PORT": str(free_port()), "PYTHONPATH": str(ROOT), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-m", "server", "serve"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode not in (0, -9)
    assert "RINGCAST_JWT" in done.stdout + done.stderr or "key" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
