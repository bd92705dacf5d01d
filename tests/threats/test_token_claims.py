"""Tokens with a good signature and bad claims, tokens too large, and floods of tokens."""

from __future__ import annotations

import http.server
import itertools
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.harness.process import TOKEN_SECRET, Node, wait_until
from tests.harness.stream import Stream
from tests.threats.conftest import Start, finish
from tests.threats.neighbours import Neighbours
from tests.threats.process_facts import cpu_seconds
from tests.threats.tokens import EVERYTHING, bearer, by_hand, pem, signed
from tests.threats.wire import WAYS, Wire, answered, ask, request

PATH = "/.well-known/mercure?topic=a"
HEADER = {"alg": "HS256", "typ": "JWT"}
SECRET = TOKEN_SECRET.encode()
ISSUER, AUDIENCE = "https://login.example", "https://hub.example"


@pytest.fixture(scope="module")
def strict_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A server that wants an issuer and an audience."""
    settings = {"jwt_secret": TOKEN_SECRET, "jwt_issuer": ISSUER, "jwt_audience": AUDIENCE, "drain_seconds": 0}
    node = Node(tmp_path_factory.mktemp("strict"), **settings).start()
    yield node
    finish(node)


def claims(**changes: object) -> str:
    """The JSON text of good claims with changes; None takes a claim away, a text that begins with `raw:` goes in as it
    is.
    """
    all_claims = EVERYTHING | {"sub": "a", "iss": ISSUER, "aud": AUDIENCE, "exp": int(time.time()) + 600} | changes
    members = []
    for key, value in all_claims.items():
        if value is not None:
            raw = isinstance(value, str) and value.startswith("raw:")
            members.append(f"{json.dumps(key)}: {str(value)[4:] if raw else json.dumps(value)}")
    return "{" + ", ".join(members) + "}"


NOW = int(time.time())
BAD = {
    "expired": {"exp": NOW - 60},
    "exp as a text": {"exp": str(NOW + 600)},
    "exp as another text": {"exp": "tomorrow"},
    "exp NaN": {"exp": "raw:NaN"},
    "exp Infinity": {"exp": "raw:Infinity"},
    "exp beyond a double": {"exp": "raw:1e999"},
    "exp 1e308": {"exp": "raw:1e308"},
    "exp of 5,000 digits": {"exp": "raw:" + "9" * 5000},
    "exp negative": {"exp": -1},
    "exp null": {"exp": "raw:null"},
    "exp true": {"exp": True},
    "exp a list": {"exp": [NOW + 600]},
    "nbf in the future": {"nbf": NOW + 600},
    "nbf as a text": {"nbf": "soon"},
    "nbf beyond a double": {"nbf": "raw:1e999"},
    "iat in the future": {"iat": NOW + 600},
    "iat as a text": {"iat": "then"},
    "iat NaN": {"iat": "raw:NaN"},
    "no issuer": {"iss": None},
    "another issuer": {"iss": "https://evil.example"},
    "a list of issuers": {"iss": [ISSUER, "https://evil.example"]},
    "an issuer with a slash": {"iss": ISSUER + "/"},
    "no audience": {"aud": None},
    "another audience": {"aud": "https://evil.example"},
    "a list without the audience": {"aud": ["https://evil.example"]},
    "an empty list of audiences": {"aud": []},
    "an audience that is an object": {"aud": {AUDIENCE: 1}},
    "a subject that is a number": {"sub": 7},
    "a subject that is a list": {"sub": ["a"]},
}


def refusals(node: Node, token: str) -> Iterator[bytes]:
    """Try a token both ways in; the bodies of the refusals."""
    for way in WAYS:
        answer = answered(node.port, request("GET", PATH, Authorization=bearer(token)), way)
        assert answer.status in (400, 401), (answer, token)
        challenge = answer.header("WWW-Authenticate") or ""
        assert challenge.startswith("Bearer") and "error=" in challenge
        yield answer.body


def test_good_claims_are_let_in(strict_node: Node) -> None:
    """S24: the table below would mean nothing otherwise."""
    good = [
        claims(),
        claims(aud=[AUDIENCE, "https://other.example"]),
        claims(exp=time.time() + 600.5),
        claims(exp=None),
        claims(nbf=NOW - 5),
    ]
    for text in good:
        token = by_hand(HEADER, text, secret=SECRET)
        assert answered(strict_node.port, request("GET", PATH, Authorization=bearer(token))).status == 200, text


@pytest.mark.parametrize("name", BAD)
def test_bad_claims_are_refused_alike(strict_node: Node, name: str) -> None:
    """S24: 401 (or 400) whatever is wrong, in the same words."""
    expired = by_hand(HEADER, claims(exp=NOW - 60), secret=SECRET)
    expected = next(refusals(strict_node, expired))
    for body in refusals(strict_node, by_hand(HEADER, claims(**BAD[name]), secret=SECRET)):
        assert body == expected


@pytest.mark.parametrize(
    "text", ["[]", "1", '"a"', "null", "true", "", "{", "\x00", "[" * 4000, '{"mercure":' * 300 + "1" + "}" * 300]
)
def test_claims_that_are_no_object_are_refused(keyed_node: Node, text: str) -> None:
    """S24: the payload is the attacker's text as long as the signature is not checked, and odd even then."""
    token = by_hand(HEADER, text or " ", secret=SECRET)
    for way in WAYS:
        answer = answered(keyed_node.port, request("GET", PATH, Authorization=bearer(token)), way)
        assert answer.status in (400, 401) or (text.startswith('{"mercure"') and answer.status in (200, 403)), answer


GRANTS = [
    "raw:1",
    "raw:null",
    "a",
    [],
    ["*"],
    {"subscribe": "*", "publish": "*"},
    {"subscribe": {"*": 1}, "publish": [["*"]]},
    {"subscribe": [1], "publish": [None]},
]


@pytest.mark.parametrize("grant", GRANTS, ids=str)
def test_a_grant_of_the_wrong_shape_grants_nothing(keyed_node: Node, grant: object) -> None:
    """S24: `mercure` as anything but lists of selectors is no right to publish, and no accident."""
    token = bearer(by_hand(HEADER, claims(mercure=grant), secret=SECRET))
    form = {"Content_Type": "application/x-www-form-urlencoded", "Authorization": token}
    answer = answered(keyed_node.port, request("POST", "/.well-known/mercure", b"topic=a&data=x", **form))
    assert answer.status in (401, 403), answer
    assert answered(keyed_node.port, request("GET", PATH, Authorization=token)).status in (200, 401, 403)


@pytest.mark.parametrize("size", [10_000, 50_000, 200_000])
def test_a_token_too_large_is_refused_before_any_work(keyed_node: Node, size: int) -> None:
    """S24: beyond 8 KB a token is 400, 401 or 431 wherever it is brought, in less than 20 ms."""
    deep = '{"a":' * (size // 12) + "1" + "}" * (size // 12)
    for token in (
        by_hand(HEADER, deep, secret=SECRET),
        "a" * size,
        "." * size,
        by_hand(HEADER, claims(pad="x" * size), secret=SECRET),
    ):
        for raw in (
            request("GET", PATH, Authorization=bearer(token)),
            request("GET", PATH, Cookie=f"mercureAuthorization={token}"),
            request("GET", f"{PATH}&authorization={token}"),
        ):
            before = cpu_seconds(keyed_node.pid)
            answers = [ask(keyed_node.port, raw, way) for way in WAYS for _ in range(2)]
            # Depth is no offence below the limit: such a token is read like any other, in the same time.
            refusals = (400, 401, 414, 431) if len(token) > 8192 else (200, 400, 401)
            assert all(answer is None or answer.status in refusals for answer in answers), answers
            assert (cpu_seconds(keyed_node.pid) - before) / 4 < 0.02


class Keys(http.server.BaseHTTPRequestHandler):
    """Serves a key set and counts how often."""

    keys: bytes = b""
    fetches = 0

    def do_GET(self) -> None:
        Keys.fetches += 1
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(Keys.keys)))
        self.end_headers()
        self.wfile.write(Keys.keys)

    def log_message(self, *_: object) -> None:
        """Silence."""


@pytest.fixture(scope="module")
def key_set() -> Iterator[tuple[str, rsa.RSAPrivateKey]]:
    """The URL of a key set with one RSA key, `kid` one, and its private half."""
    private = rsa.generate_private_key(65537, 2048)
    jwk = jwt.algorithms.RSAAlgorithm.to_jwk(private.public_key(), as_dict=True) | {
        "kid": "one",
        "alg": "RS256",
        "use": "sig",
    }
    Keys.keys = json.dumps({"keys": [jwk]}).encode()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Keys)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/jwks.json", private
    server.shutdown()
    server.server_close()


STRANGE_KIDS = [
    "../../../dev/null",
    "' OR 1=1 --",
    "a\x00b",
    "k" * 5_000,
    "",
    "one ",
    "ONE",
    1,
    None,
    ["one"],
    {"one": 1},
    "file:///etc/passwd",
]


def admitted(node: Node, header: str) -> bool:
    """True if this token opens a stream."""
    return answered(node.port, request("GET", PATH, Authorization=header)).status == 200


def test_a_flood_of_unknown_key_names_fetches_the_key_set_once(
    start: Start, key_set: tuple[str, rsa.RSAPrivateKey]
) -> None:
    """S23: 1,000 made-up `kid`s: at most one fetch a minute beyond the first, each refused, and the good key goes on
    working.
    """
    url, private = key_set
    node = start(jwks_url=url, jwt_algorithm="RS256")
    good = bearer(signed(key=private, algorithm="RS256", kid="one"))
    wait_until(lambda: admitted(node, good), 10, "the key set fetched")
    before = Keys.fetches
    connection = Wire(node.port)
    header = {"alg": "RS256", "typ": "JWT"}
    for kid in itertools.chain((f"k{i}" for i in range(1000)), STRANGE_KIDS):
        connection.send(
            request("GET", "/channels/main/events", Authorization=bearer(by_hand(header | {"kid": kid}, secret=b"x")))
        )
        answer = connection.answer()
        assert answer is not None and answer.status in (400, 401), (kid, answer)
        if answer.header("Connection") == "close":
            connection.close()
            connection = Wire(node.port)
    connection.close()
    assert Keys.fetches - before <= 1
    assert admitted(node, good)


def test_a_key_name_is_looked_up_and_nothing_else(start: Start, key_set: tuple[str, rsa.RSAPrivateKey]) -> None:
    """S23: a `kid` that is a path, a query or no text does not turn a file, or nothing, into an HMAC key."""
    node = start(jwks_url=key_set[0], jwt_algorithm="RS256")
    good = bearer(signed(key=key_set[1], algorithm="RS256", kid="one"))
    wait_until(lambda: admitted(node, good), 10, "the key set fetched")
    for kid, secret in itertools.product([*STRANGE_KIDS, "one"], (b"", b"x")):
        token = by_hand({"alg": "HS256", "typ": "JWT", "kid": kid}, secret=secret)
        assert answered(node.port, request("GET", PATH, Authorization=bearer(token))).status in (400, 401)


def test_a_flood_of_bad_signatures_delays_nobody(tmp_path: Path) -> None:
    """S25: two attackers send RSA tokens with a wrong signature as fast as they can for 2 s: heartbeats and events stay
    on time.
    """
    private, other = (rsa.generate_private_key(65537, 2048) for _ in range(2))
    settings = {
        "jwt_algorithm": "RS256",
        "jwt_public_key": pem(private.public_key()).decode(),
        "heartbeat_seconds": 0.2,
        "drain_seconds": 0,
    }
    node = Node(tmp_path, **settings).start()
    good = bearer(signed(key=private, algorithm="RS256"))
    bad = [bearer(signed(EVERYTHING | {"n": n}, key=other, algorithm="RS256")) for n in range(100)]
    try:
        with (
            Neighbours(node.port, Authorization=good, p99_seconds=1),
            Stream(node.port, PATH, Authorization=good) as quiet,
        ):
            threads = [threading.Thread(target=_flood, args=(node.port, bad, 2.0)) for _ in range(2)]
            for thread in threads:
                thread.start()
            gaps, last = [], time.monotonic()
            while any(thread.is_alive() for thread in threads):
                assert quiet.next_block(2) is not None
                gaps.append(time.monotonic() - last)
                last += gaps[-1]
            assert max(gaps) < 0.2 + 1
    finally:
        finish(node)


def _flood(port: int, tokens: list[str], seconds: float) -> None:
    end = time.monotonic() + seconds
    for token in itertools.cycle(tokens):
        if time.monotonic() > end:
            return
        assert answered(port, request("GET", PATH, Authorization=token)).status == 401
