"""Google Pub/Sub's push: who may, what is answered, and that each message enters once."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import jwt
import pytest
import structlog
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from bridges.bridge import Bridge
from bridges.database import DatabaseUnavailable
from bridges.mapping import Mapping, Message
from bridges.pubsub import Pusher, by_subscription
from bridges.pubsub_push import NO_KEYS, PubSubPush
from handlers.answers import Refused
from handlers.endpoints import Call
from server.exchange import Request
from server.rights import ANONYMOUS
from tests.bridges.conftest import bridge, data, facts, listen, mapping, settings, state, until
from tests.bridges.fed import fed
from tests.bridges.feeder import PubSubFeeder, PushFeeder
from tests.bridges.google import (
    AUDIENCE,
    EC_KEY,
    EC_KEY_ID,
    EMAIL,
    ISSUER,
    KEY,
    KEY_ID,
    PATH,
    SUBSCRIPTION,
    Accounts,
    Signing,
    claims,
    envelope,
    token,
)
from tests.bridges.recording_hub import RecordingHub
from tests.conftest import StartNode
from tests.harness.process import TOKEN_SECRET, Node, wait_until
from tests.harness.pubsub import PubSubEmulator, subscription_path
from tests.harness.redis import RedisServer
from tests.server.relay.bench import run
from tests.threats.tokens import by_hand

RECORDED = json.loads((Path(__file__).parent / "pubsub_envelopes.json").read_text())
ORDERS = mapping(SUBSCRIPTION, "t")
EVERYTHING = mapping(SUBSCRIPTION, "{attributes.about}")


def push_bridge(*mappings: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return bridge("pubsub", "p", *mappings, delivery="push", audience=AUDIENCE, email=EMAIL, **fields)


def push(node: Node, body: object, bearer: str | None = None, **headers: str) -> tuple[int, dict[str, str], Any]:
    """Push with a good token, or another, or with none (""): status, headers, and what the answer says."""
    if bearer != "":
        headers |= {"Authorization": f"Bearer {bearer or token()}"}
    content = body if isinstance(body, (bytes, str)) else json.dumps(body)
    status, given, answer = node.request("POST", PATH, content, Content_Type="application/json", **headers)
    return status, given, json.loads(answer) if answer else None


@pytest.fixture(scope="module")
def accounts() -> Iterator[Accounts]:
    server = Accounts()
    yield server
    server.close()


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory, accounts: Accounts) -> Iterator[Node]:
    """A node with a key of its own, which the tokens of Google's are not signed with."""
    keyed = {"jwt_secret": TOKEN_SECRET, "anonymous": True, "max_body_bytes": 100_000, "max_frame_bytes": 100_000}
    wanted = push_bridge(mapping(SUBSCRIPTION, "t"), mapping(f"{SUBSCRIPTION}-json", "j", data="{json.n}"))
    server = Node(tmp_path_factory.mktemp("pushed"), **settings(wanted, pubsub_jwks_url=accounts.url, **keyed)).start()
    wait_until(lambda: state(server, "p") == "ok", what="the issuer's keys")
    yield server
    server.kill()


# --- what is taken


def test_a_push_is_an_event_and_204(pushed: Node) -> None:
    with listen(pushed) as stream:
        status, headers, body = push(pushed, envelope("1", '{"a":1}'))
        assert (status, body) == (204, None)
        assert headers.get("content-length", "0") == "0"
        assert data(stream, 1) == ['{"a":1}']


def test_what_was_recorded_of_pushes_is_taken(pushed: Node) -> None:
    """As Google's documentation shows it, and as the emulator sent it."""
    with listen(pushed) as stream:
        for number, (name, recorded) in enumerate(RECORDED.items()):
            unique = recorded | {"subscription": SUBSCRIPTION}
            unique["message"] = recorded["message"] | {"messageId": f"recorded-{number}"}
            assert push(pushed, unique)[0] == 204, name
        assert len(data(stream, len(RECORDED))) == len(RECORDED)


def test_a_push_that_comes_again_enters_once(pushed: Node) -> None:
    with listen(pushed) as stream:
        for message_id in ("again", "again", "another", "again"):
            assert push(pushed, envelope(message_id, message_id))[0] == 204
        assert data(stream, 2) == ["again", "another"]
        assert push(pushed, envelope("behind", "behind"))[0] == 204
        assert data(stream, 1) == ["behind"]


def test_a_large_message_is_taken_or_acknowledged_and_let_go(pushed: Node) -> None:
    """The bound on publishes' bodies is not that of pushes: what can't be read could never be acknowledged."""
    before = facts(pushed, "p")["unmappable"]
    with listen(pushed) as stream:
        assert push(pushed, envelope("large", "x" * 90_000))[0] == 204
        assert data(stream, 1) == ["x" * 90_000]
        assert push(pushed, envelope("too-large", "x" * 10_000_000))[0] == 204
        assert push(pushed, envelope("behind-large", "1"))[0] == 204
        assert data(stream, 1) == ["1"]
    assert facts(pushed, "p")["unmappable"] == before + 1


def test_what_does_not_fit_is_counted_and_acknowledged(pushed: Node) -> None:
    before = facts(pushed, "p")["unmappable"]
    poison = envelope("poison", "no json") | {"subscription": f"{SUBSCRIPTION}-json"}
    assert push(pushed, poison)[0] == 204
    assert facts(pushed, "p")["unmappable"] == before + 1
    assert "no json" not in pushed.log()


def test_with_a_dead_letter_topic_what_does_not_fit_is_given_back_to_it(node: StartNode, accounts: Accounts) -> None:
    wanted = push_bridge(mapping(SUBSCRIPTION, data="{json.n}"), dead_letter=True)
    one = node(**settings(wanted, pubsub_jwks_url=accounts.url, max_frame_bytes=2_000))
    wait_until(lambda: state(one, "p") == "ok", what="the issuer's keys")
    for unfit in ("no json", json.dumps({"n": "x" * 3_000})):
        status, _, body = push(one, envelope("1", unfit))
        assert (status, body["field"]) == (400, "message")
    assert push(one, envelope("2", '{"n": 1}'))[0] == 204


# --- what is not


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ("no json", "body"),
        ("", "body"),
        ("[]", ""),
        ("{}", "message"),
        ({"subscription": SUBSCRIPTION, "message": 1}, "message"),
        ({"subscription": SUBSCRIPTION, "message": {"data": ""}}, "message.messageId"),
        (envelope(""), "message.messageId"),
        (envelope("1", data="no base64!"), "message.data"),
        (envelope("1", data=1), "message.data"),
        (envelope("1", attributes={"a": 1}), "message.attributes"),
        ({"message": envelope("1")["message"]}, "subscription"),
        (envelope("1") | {"subscription": "projects/other/subscriptions/orders"}, "subscription"),
    ],
)
def test_what_pub_sub_never_sends_is_refused_with_its_field_and_counted(pushed: Node, body: Any, field: str) -> None:
    before = facts(pushed, "p")["unmappable"]
    status, _, answer = push(pushed, body)
    assert (status, answer["code"], answer.get("field", "")) == (400, "bad_request", field)
    assert facts(pushed, "p")["unmappable"] == before + 1


OTHER_KEY = rsa.generate_private_key(65537, 2048)
PUBLIC = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize(
    ("bearer", "status"),
    [
        ("", 401),
        ("nonsense", 401),
        (token(iss="https://accounts.example.com"), 401),
        (token(iss=None), 401),
        (token(aud="https://events.example.com/"), 401),
        (token(aud=None), 401),
        (token(exp=int(time.time()) - 60), 401),
        (token(exp=None), 401),
        (token(iat=int(time.time()) + 600), 401),
        (token(OTHER_KEY), 401),
        (token(key_id="another"), 401),
        (token(EC_KEY, "ES256", EC_KEY_ID), 401),
        (token(KEY, "RS512"), 401),
        (by_hand({"alg": "none", "typ": "JWT", "kid": KEY_ID}, claims()), 401),
        (by_hand({"alg": "HS256", "typ": "JWT", "kid": KEY_ID}, claims(), secret=PUBLIC), 401),
        (jwt.encode(claims(), TOKEN_SECRET, "HS256"), 401),
        (token(email="other@ringcast-tests.iam.gserviceaccount.com"), 403),
        (token(email=EMAIL.upper()), 403),
        (token(email=None), 403),
        (token(email_verified=False), 403),
        (token(email_verified="true"), 403),
        (token(email_verified=None), 403),
    ],
)
def test_a_push_without_the_right_token_is_refused(pushed: Node, bearer: str, status: int) -> None:
    """S20, S21, S22: nothing of it enters, and nothing of the token is in the answer or the log."""
    before = facts(pushed, "p")
    given, headers, answer = push(pushed, envelope("refused", "refused"), bearer)
    assert given == status
    assert headers["www-authenticate"].startswith("Bearer")
    assert answer["code"] == {401: "unauthorized", 403: "forbidden"}[status]
    assert facts(pushed, "p") == before
    log = pushed.log()
    assert [part for part in bearer.split(".") if len(part) > 20 and part in log] == []


def test_the_right_token_in_any_other_place_is_none(pushed: Node) -> None:
    status, _, _ = push(pushed, envelope("1"), "", Cookie=f"mercureAuthorization={token()}")
    assert status == 401
    assert pushed.request("POST", f"{PATH}?authorization={token()}", json.dumps(envelope("1")))[0] == 401
    assert push(pushed, envelope("1"), "", Authorization=f"Basic {token()}")[0] == 401


def test_a_token_for_pushes_is_none_for_anything_else(pushed: Node) -> None:
    header = {"Authorization": f"Bearer {token()}"}
    assert pushed.request("POST", "/channels/main/events", '{"topic":"t"}', **header)[0] == 401
    assert pushed.get("/channels/main/events?topic=t", **header)[0] == 401


def test_who_may_not_push_is_told_before_the_body(pushed: Node) -> None:
    """S02: 16 MiB are for those whose token is good."""
    head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 16000000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", pushed.port), timeout=5) as connection:
        connection.sendall(head.encode())
        assert connection.recv(12) == b"HTTP/1.1 401"


def test_a_body_beyond_what_pub_sub_sends_is_413(pushed: Node) -> None:
    assert push(pushed, "x" * (17 * 1024 * 1024))[0] == 413


def test_only_a_post_of_this_path_is_a_push(pushed: Node) -> None:
    assert pushed.get(PATH)[0] == 405
    for path in (f"{PATH}/", "/bridges/pubsub/q", "/bridges/pubsub", "/bridges/pubsub/%70"):
        status = pushed.request("POST", path, "{}", Authorization=f"Bearer {token()}")[0]
        assert status == 404, path


# --- when something is away


def in_process(hub: Any, *mappings: Mapping, keys: str, **options: Any) -> PubSubPush:
    pusher = Pusher(AUDIENCE, EMAIL, ISSUER, keys)
    return PubSubPush("p", hub, by_subscription(mappings or [PLAIN], None), pusher, **options)


PLAIN = Mapping(SUBSCRIPTION, channel="main", topics=["t"])


async def answered(one: PubSubPush, body: dict[str, Any]) -> int:
    """The status of a push."""
    [endpoint] = one.endpoints
    headers = {b"authorization": f"Bearer {token()}".encode()}
    request = Request("POST", endpoint.path, "", headers, "127.0.0.1", json.dumps(body).encode())
    try:
        assert endpoint.head is not None
        endpoint.head(request)
        return (await endpoint.run(Call(request, {}, None, None, ANONYMOUS))).response().status
    except Refused as refused:
        return refused.status


@contextmanager
def silently() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as lines:
        yield lines


async def stopped(one: Bridge, task: asyncio.Future[None]) -> None:
    await one.stop()
    await task


def test_a_push_is_answered_when_it_is_in_the_log_and_a_stop_waits_for_it(accounts: Accounts) -> None:
    async def main() -> None:
        hub = RecordingHub()
        one = in_process(hub, keys=accounts.url, max_waiting=2)
        assert await answered(one, envelope("0")) == 503  # not begun yet
        task = asyncio.ensure_future(one.run())
        await until(lambda: one.state == "ok")
        hub.gate.clear()
        first = asyncio.ensure_future(answered(one, envelope("1", "1")))
        second = asyncio.ensure_future(answered(one, envelope("2", "2")))
        await until(lambda: len(hub.calls) == 2)
        assert await answered(one, envelope("3")) == 503  # as many as may be
        stopping = asyncio.ensure_future(one.stop())
        await until(lambda: not one.active)
        assert await answered(one, envelope("4")) == 503
        assert not first.done() and not task.done()
        hub.gate.set()
        assert (await first, await second) == (204, 204)
        await stopping
        await task
        assert hub.data == ["main 1", "main 2"]

    with silently():
        run(main())


def test_a_handler_takes_messages_itself_and_may_want_them_later(accounts: Accounts) -> None:
    async def main() -> None:
        seen: list[Message] = []

        async def handler(message: Message) -> None:
            seen.append(message)
            if len(seen) == 1:
                raise DatabaseUnavailable("the database does not answer")

        one = in_process(RecordingHub(), Mapping(SUBSCRIPTION, handler=handler), keys=accounts.url)
        task = asyncio.ensure_future(one.run())
        await until(lambda: one.state == "ok")
        assert await answered(one, envelope("1", "x", orderingKey="k")) == 204  # at the second try
        assert [message.body for message in seen] == [b"x", b"x"]
        assert seen[0].attributes == {
            "order": "7",
            "googMessageId": "1",
            "googOrderingKey": "k",
            "googPublishTime": "2026-02-19T15:06:28.103Z",
        }
        assert seen[0].id == f"{SUBSCRIPTION}:1"
        await stopped(one, task)

    with silently():
        run(main())


def test_without_the_issuers_keys_pushes_are_for_later(accounts: Accounts) -> None:
    async def main() -> None:
        one = in_process(RecordingHub(), keys="http://127.0.0.1:1/keys")
        task = asyncio.ensure_future(one.run())
        await until(lambda: one.active)
        assert await answered(one, envelope("1")) == 503
        assert one.state == NO_KEYS
        await stopped(one, task)

    with silently() as lines:
        run(main())
    assert "key_fetch_failed" in {line["event"] for line in lines}


@pytest.mark.fault
def test_while_the_relay_is_away_pushes_are_for_later_and_enter_once(
    redis: RedisServer, node: StartNode, accounts: Accounts, seed: int
) -> None:
    moments = random.Random(seed)
    one = node(**settings(push_bridge(EVERYTHING), pubsub_jwks_url=accounts.url, relay=redis.url))
    wait_until(lambda: state(one, "p") == "ok", what="the issuer's keys")
    refusals: list[tuple[int, str | None]] = []
    with fed(partial(PushFeeder, one, SUBSCRIPTION, refusals), one, seed=seed) as scene:
        scene.wait_for(moments.randrange(5, 100))
        assert refusals == []
        redis.signal(signal.SIGSTOP)
        wait_until(lambda: refusals and state(one, "p") != "ok", 20, "a refusal, and the state to say so")
        time.sleep(moments.uniform(0, 1))  # for so long the relay stays away
        redis.signal(signal.SIGCONT)
        scene.wait_for(20)
    assert {status for status, _ in refusals} <= {503, 504}
    assert all(int(seconds or 0) >= 1 for _, seconds in refusals)


# --- many nodes, and the emulator


def test_of_two_nodes_each_knows_what_the_other_has_taken(
    redis: RedisServer, node: StartNode, accounts: Accounts
) -> None:
    wanted = settings(push_bridge(ORDERS), pubsub_jwks_url=accounts.url, relay=redis.url)
    both = [node(**wanted) for _ in range(2)]
    for one in both:
        wait_until(lambda one=one: state(one, "p") == "ok", what="the issuer's keys")
    with listen(both[0]) as stream:
        for number in range(20):
            for one in both:
                assert push(one, envelope(str(number), str(number)))[0] == 204
        assert push(both[1], envelope("end", "end"))[0] == 204
        assert data(stream, 21) == [*map(str, range(20)), "end"]
    assert sum(facts(one, "p")["repeated"] for one in both) == 20


@pytest.mark.fault
def test_the_emulator_pushes_and_pushes_again_what_a_killed_node_did_not_answer(
    emulator: PubSubEmulator, node: StartNode, accounts: Accounts, seed: int
) -> None:
    moments = random.Random(seed)
    topic, pushed = f"pushes-{seed}", f"pushed-{seed}"
    wanted = push_bridge(mapping(subscription_path(pushed), "{attributes.about}"))
    one = node(**settings(wanted, pubsub_jwks_url=accounts.url, relay="sqlite:log.db"))
    wait_until(lambda: state(one, "p") == "ok", what="the issuer's keys")
    between = Signing([one.port])
    try:
        emulator.make(topic, pushed, push_to=between.url, ordered=True)
        with fed(partial(PubSubFeeder, emulator, topic, ordered=True), one, seed=seed, every=0.02) as scene:
            enough = moments.randrange(5, 60)
            wait_until(lambda: facts(one, "p")["published"] > enough, what="pushes")
            one.kill()
            scene.wait_for(moments.randrange(5, 30))
            one.start()
            scene.wait_for(10)
    finally:
        between.close()
