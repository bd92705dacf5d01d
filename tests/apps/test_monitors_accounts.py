"""Tenants, users and tokens of `monitors`: who gets in, with and without a key of the server, and how it ends."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jwt
import pytest

from tests.apps.monitoring import PASSWORD, SETTINGS, Tenant, ask, broadcast, register
from tests.conftest import StartNode
from tests.harness.process import TOKEN_SECRET, Node, wait_until
from tests.threats.tokens import bearer, signed

AUTH = "/api/v1/auth"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """In development mode: no key."""
    node = Node(tmp_path_factory.mktemp("monitors"), **SETTINGS).start()
    yield node
    node.kill()


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """With a key, an issuer and an audience."""
    settings = SETTINGS | {"jwt_secret": TOKEN_SECRET, "jwt_issuer": "us", "jwt_audience": "them"}
    node = Node(tmp_path_factory.mktemp("monitors"), **settings).start()
    yield node
    node.kill()


@pytest.fixture(scope="module", params=["server", "keyed"])
def either(request: pytest.FixtureRequest) -> Node:
    """In both modes."""
    found: Node = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Behind a proxy, with few guesses, and closed to newcomers."""
    settings = {"monitors_logins_per_minute": 2, "trusted_proxies": "127.0.0.1", "monitors_registration": False}
    node = Node(tmp_path_factory.mktemp("monitors"), **SETTINGS | settings).start()
    yield node
    node.kill()


def login(node: Node, email: str, password: str = PASSWORD) -> Any:
    return ask(node, "POST", f"{AUTH}/login", {"email": email, "password": password})


def claims(token: str) -> dict[str, Any]:
    return jwt.decode(token, options={"verify_signature": False})


def test_a_token_names_the_user_the_tenant_and_its_end(either: Node) -> None:
    """M1"""
    tenant = register(either, "Shops")
    answer = login(either, tenant.email.upper())
    assert answer.status == 200
    said = claims(answer.json["token"])
    assert said["tenant"] == tenant.number == answer.json["tenant"]["id"]
    assert said["sub"] == f"monitors-{answer.json['user']['id']}"
    assert said["exp"] == pytest.approx(time.time() + 3_600, abs=60)
    assert answer.json["tenant"]["name"] == "Shops"
    assert "password" not in answer.text
    again = Tenant(either, answer.json["token"], tenant.number)
    assert again.get("/api/v1/monitors")["total"] == 0
    with again.stream() as stream:
        assert (stream.status, stream.next_event().type) == (200, "connected")


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/monitors", "/api/v1/monitors/summary", "/api/v1/checks/latest", "/api/v1/alert-rules",
        "/api/v1/incidents", "/api/v1/auth/users", "/api/v1/monitors/" + "a" * 24, "/api/v1/stream/events",
    ],
)  # fmt: skip
def test_without_a_token_nothing_is_shown(either: Node, path: str) -> None:
    """M1: in development mode neither, where the engine asks nobody for a token."""
    for header in ({}, {"Authorization": "Bearer a.b.c"}, {"Authorization": "Bearer x"}):
        answer = ask(either, "GET", path, **header)
        assert (answer.status, answer.json["code"]) == (401, "unauthorized"), (path, header)
    assert ask(either, "GET", f"{path}?token=a.b.c&authorization=a.b.c").status == 401


@pytest.mark.parametrize(
    "forged",
    [
        {"key": "another secret of at least thirty-two bytes"},
        {"claims": {"sub": "monitors-1", "tenant": 1, "exp": 1}},
        {"claims": {"sub": "monitors-1", "tenant": 1, "exp": "soon"}},
    ],
    ids=["another key", "expired", "no time"],
)
def test_a_token_that_is_not_good_is_none(either: Node, forged: dict[str, Any]) -> None:
    token = signed(forged.get("claims", {"sub": "monitors-1", "tenant": 1}), key=forged.get("key", TOKEN_SECRET))
    answer = ask(either, "GET", "/api/v1/monitors", Authorization=bearer(token))
    assert answer.status == 401


@pytest.mark.parametrize("tenant", [None, "", 0, -1, "x", "1/../2", "01", 1.5, [1], True, "9" * 30])
def test_a_token_of_the_server_without_a_tenant_is_refused(keyed: Node, tenant: object) -> None:
    """S30: only a whole number names one."""
    facts: dict[str, Any] = {"sub": "somebody", "iss": "us", "aud": "them", "ringcast": {"operate": True}}
    if tenant is not None:
        facts["tenant"] = tenant
    answer = ask(keyed, "GET", "/api/v1/monitors", Authorization=bearer(signed(facts)))
    assert (answer.status, answer.json["code"]) == (403, "forbidden")


def test_a_tenant_that_only_the_issuer_knows_can_look_and_make_nothing(keyed: Node) -> None:
    token = signed({"sub": "s", "iss": "us", "aud": "them", "tenant": 4_711_000})
    stranger = Tenant(keyed, token, 4_711_000)
    assert stranger.get("/api/v1/monitors")["monitors"] == []
    body = {"name": "a", "url": "http://example.com/"}
    assert stranger.ask("POST", "/api/v1/monitors", body).status == 403
    assert stranger.ask("POST", "/api/v1/alert-rules", {"name": "a", "trigger_type": "down"}).status == 403
    assert stranger.ask("POST", f"{AUTH}/users", {"email": "z@example.com", "password": PASSWORD}).status == 403
    assert stranger.ask("POST", f"{AUTH}/refresh").status == 403
    for path in ("monitors", "alert-rules"):
        nobodys = f"/api/v1/{path}/{'0' * 24}"
        assert stranger.ask("PATCH", nobodys, {"name": "b"}).status == 403
        assert stranger.ask("DELETE", nobodys).status == 403


def test_keys_of_an_issuer_leave_accounts_to_the_issuer(node: StartNode, tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text(json.dumps({"keys": []}))
    started = node(**SETTINGS, jwks_url=f"file://{tmp_path}/keys.json", jwt_algorithm="RS256")
    assert ask(started, "GET", f"{AUTH}/options").json["accounts"] is False
    answer = ask(started, "POST", f"{AUTH}/login", {"email": "a@b.c", "password": PASSWORD})
    assert (answer.status, answer.json["code"]) == (404, "not_found")


# --- registering and logging in


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"password": PASSWORD}, "email"),
        ({"email": "nobody", "password": PASSWORD}, "email"),
        ({"email": "a b@c.d", "password": PASSWORD}, "email"),
        ({"email": "a@b\u0000.d", "password": PASSWORD}, "email"),
        ({"email": "a@" + "b" * 300, "password": PASSWORD}, "email"),
        ({"email": "İ" * 64 + "@" + "İ" * 100 + ".c", "password": PASSWORD}, "email"),
        ({"email": "a@b.c", "password": "short"}, "password"),
        ({"email": "a@b.c", "password": "x" * 201}, "password"),
        ({"email": "a@b.c", "password": PASSWORD, "tenant_name": "a\u202eb"}, "tenant_name"),
        ({"email": "a@b.c", "password": PASSWORD, "tenant": 1}, "tenant"),
    ],
)
def test_a_registration_that_is_not_valid(server: Node, body: object, field: str) -> None:
    answer = ask(server, "POST", f"{AUTH}/register", body)
    assert (answer.status, answer.json["code"], answer.json["field"]) == (422, "invalid", field)


def test_a_lone_surrogate_is_no_password(server: Node) -> None:
    answer = ask(server, "POST", f"{AUTH}/register", '{"email":"a@b.c","password":"\\ud800aaaaaaaa"}')
    assert answer.status in (400, 422), answer.text


def test_an_address_is_taken_once(server: Node) -> None:
    tenant = register(server)
    body = {"email": tenant.email.upper(), "password": PASSWORD}
    answer = ask(server, "POST", f"{AUTH}/register", body)
    assert (answer.status, answer.json["code"], answer.json["field"]) == (409, "conflict", "email")


def test_nobody_learns_whether_there_is_such_a_user(server: Node) -> None:
    """S33: the same answer after the same work."""
    tenant = register(server)
    took: dict[str, list[float]] = {"wrong": [], "nobody": []}
    answers = set()
    for _ in range(15):
        for kind, email in (("wrong", tenant.email), ("nobody", "nobody@example.com")):
            began = time.monotonic()
            answer = login(server, email, "not the password")
            took[kind].append(time.monotonic() - began)
            answers.add((answer.status, answer.text))
    assert [status for status, _ in answers] == [401]
    wrong, nobody = statistics.median(took["wrong"]), statistics.median(took["nobody"])
    assert 0.4 < wrong / nobody < 2.5, took


def guess(node: Node, client: str, email: str) -> Any:
    body = {"email": email, "password": "guess"}
    return ask(node, "POST", f"{AUTH}/login", body, X_Forwarded_For=client)


def test_guesses_are_counted_by_address_and_by_user(strict: Node) -> None:
    """Also behind a proxy, whose clients are counted each for itself, and of IPv6 by network."""
    answers = [guess(strict, "192.0.2.1", f"{number}@example.com") for number in range(4)]
    assert [answer.status for answer in answers] == [401, 401, 429, 429]
    assert answers[-1].json["code"] == "rate_limited"
    assert int(answers[-1].headers["retry-after"]) >= 1
    answers = [guess(strict, f"2001:db8::{number}", f"{number}@example.com") for number in range(4)]
    assert [answer.status for answer in answers] == [401, 401, 429, 429]
    statuses = [guess(strict, f"192.0.2.{number}", "victim@example.com").status for number in range(10, 20)]
    assert statuses[:6] == [401] * 6 and 429 in statuses[6:]


def test_nobody_is_locked_out_by_guesses_from_one_address(strict: Node) -> None:
    statuses = [guess(strict, "192.0.2.50", "innocent@example.com").status for _ in range(8)]
    assert 429 in statuses
    assert guess(strict, "192.0.2.51", "innocent@example.com").status == 401


def test_registration_may_be_closed(strict: Node) -> None:
    answer = ask(strict, "POST", f"{AUTH}/register", {"email": "a@b.c", "password": PASSWORD})
    assert (answer.status, answer.json["code"]) == (403, "forbidden")
    assert ask(strict, "GET", f"{AUTH}/options").json["registration"] is False


def test_passwords_are_not_kept_as_they_are(server: Node) -> None:
    register(server)
    kept = b"".join(path.read_bytes() for path in server.folder.glob("ringcast.db*"))
    assert b"scrypt-" in kept
    assert PASSWORD.encode() not in kept
    assert PASSWORD not in server.log()


def test_the_key_of_development_mode_outlives_the_process(node: StartNode, server: Node) -> None:
    """A restart signs nobody out; another installation's tokens are no good."""
    first = node(**SETTINGS)
    tenant = register(first)
    first.stop()
    second = node(**SETTINGS)
    assert tenant.on(second).get("/api/v1/monitors")["total"] == 0
    assert register(server).on(second).ask("GET", "/api/v1/monitors").status == 401


# --- how it ends


def test_a_stream_ends_when_its_token_does(node: StartNode) -> None:
    """M1: at `exp`, and does not come back."""
    started = node(**SETTINGS | {"monitors_token_seconds": 4})
    tenant = register(started)
    with tenant.stream() as stream:
        blocks = stream.wait_end(8)
    assert blocks[-1].type == "auth_expired"
    end = claims(tenant.token)["exp"]
    assert 0 <= time.time() - end < 2
    with tenant.stream() as stream:
        assert stream.status == 401
    assert tenant.ask("GET", "/api/v1/monitors").status == 401


def test_a_token_may_be_renewed_and_logged_out(either: Node) -> None:
    tenant = register(either)
    renewed = tenant.ask("POST", f"{AUTH}/refresh")
    assert renewed.status == 200
    fresh = Tenant(either, renewed.json["token"], tenant.number)
    with tenant.stream() as old, fresh.stream() as new:
        old.next_event(), new.next_event()
        assert tenant.ask("POST", f"{AUTH}/logout").status == 204
        assert old.wait_end()[-1].type == "revoked"
        assert broadcast_to(either, fresh) == new.events(1)[0].id
    assert tenant.ask("GET", "/api/v1/monitors").status == 401
    with tenant.stream() as stream:
        assert stream.status == 401
    assert fresh.get("/api/v1/monitors")["total"] == 0


def broadcast_to(node: Node, tenant: Tenant) -> str:
    """One event; its id."""
    headers = {"Authorization": bearer(signed({"iss": "us", "aud": "them", "ringcast": {"operate": True}}))}
    answer = broadcast(node, tenant.number, {"monitor_id": "m"}, **(headers if "jwt_secret" in node.settings else {}))
    assert answer.status == 200, answer.text
    return str(answer.json["id"])


def test_a_user_who_is_removed_is_out_at_once(either: Node) -> None:
    tenant = register(either)
    email = f"second-{tenant.email}"
    added = tenant.make(f"{AUTH}/users", {"email": email, "password": PASSWORD})
    answer = login(either, email)
    second = Tenant(either, answer.json["token"], tenant.number)
    assert answer.json["tenant"]["id"] == tenant.number
    assert [user["email"] for user in tenant.get(f"{AUTH}/users")["users"]] == [tenant.email, email]
    assert second.ask("DELETE", f"{AUTH}/users/{added['id']}").status == 409  # not oneself
    with second.stream() as stream, tenant.stream() as mine:
        stream.next_event(), mine.next_event()
        assert tenant.ask("DELETE", f"{AUTH}/users/{added['id']}").status == 204
        assert stream.wait_end()[-1].type == "revoked"
        assert mine.events(1)[0].type == "user_deleted"
    assert second.ask("GET", "/api/v1/monitors").status == 401
    assert login(either, email).status == 401
    assert tenant.ask("DELETE", f"{AUTH}/users/{added['id']}").status == 404


def test_a_tenant_s_users_are_nobody_else_s(either: Node) -> None:
    mine, other = register(either), register(either)
    [user] = other.get(f"{AUTH}/users")["users"]
    assert mine.ask("DELETE", f"{AUTH}/users/{user['id']}").status == 404
    assert other.email not in json.dumps(mine.get(f"{AUTH}/users"))
    for wrong in ("0", "x", "-1", "9" * 40, "%00", "1.0"):
        assert mine.ask("DELETE", f"{AUTH}/users/{wrong}").status == 404


def test_a_revoked_tenant_loses_its_streams_and_its_way_in(either: Node) -> None:
    """M1, S27: by the engine's revocations, in development mode too."""
    mine, other = register(either), register(either)
    headers = {}
    if "jwt_secret" in either.settings:
        operator = signed({"iss": "us", "aud": "them", "ringcast": {"operate": True}})
        headers = {"Authorization": bearer(operator)}
    with mine.stream() as stream, other.stream() as others:
        stream.next_event(), others.next_event()
        body = {"tenant": str(mine.number), "seconds": 60}
        assert ask(either, "POST", "/revocations", body, **headers).status == 200
        assert stream.wait_end()[-1].type == "revoked"
        assert mine.ask("GET", "/api/v1/monitors").status == 401
        assert other.get("/api/v1/monitors")["total"] == 0
        assert broadcast_to(either, other) == others.events(1)[0].id


def test_a_token_of_a_tenant_opens_no_other_door(keyed: Node) -> None:
    """The general endpoints know nothing of the channel: to such a token it is not there."""
    tenant = register(keyed)
    for path in ("/channels/monitors/events", "/stats", "/metrics"):
        answer = tenant.ask("GET", path, X_Forwarded_For="192.0.2.1")
        assert answer.status == 404, path
    answer = tenant.ask("POST", "/channels/monitors/events", {"topic": f"tenants/{tenant.number}", "data": "x"})
    assert answer.status in (403, 404)


def test_too_many_passwords_at_once_are_put_off(server: Node) -> None:
    """A flood of logins costs threads of its own and no more; streams go on."""
    tenant = register(server)
    with tenant.stream() as stream, ThreadPoolExecutor(40) as pool:
        stream.next_event()
        flood = [pool.submit(login, server, "a@example.com", "guess") for _ in range(40)]
        wait_until(lambda: any(one.done() for one in flood), 10)
        began = time.monotonic()
        assert broadcast_to(server, tenant) == stream.events(1)[0].id
        assert time.monotonic() - began < 2
        statuses = {one.result().status for one in flood}
    assert statuses <= {401, 503} and 401 in statuses
