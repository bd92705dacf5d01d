"""Section 5 of the contract: a publish that is sent again."""

from __future__ import annotations

import threading
import time

import pytest

from tests.contract.client import JSON, NDJSON, Answer, Channel, Publisher
from tests.contract.conftest import StartChannel
from tests.harness.process import TOKEN_SECRET
from tests.mercure.hub import Hub, token

KEY = "order-7/attempt"


def assert_repeated(first: Answer, again: Answer) -> None:
    """The answer to the first, and it says so."""
    assert again.body == first.body
    assert again.status == 200
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers


@pytest.mark.parametrize(
    ("body", "content_type"), [('{"data": "a"}', JSON), ('{"data": "a"}\n{"data": "b"}\n', NDJSON)]
)
def test_the_same_key_and_body_are_one_publish(relayed: Channel, body: str, content_type: str) -> None:
    """5.1: the same ids, no new event."""
    publisher = relayed.publisher()
    first = publisher.post(body, content_type, Idempotency_Key=KEY)
    for _ in range(3):
        assert_repeated(first, publisher.post(body, content_type, Idempotency_Key=KEY))
    assert [event.id for event in relayed.history()] == first.ids


def test_the_mercure_endpoint_knows_keys_too(channel: StartChannel) -> None:
    """5.1: with the id as the answer's body."""
    hub = Hub(channel().node)
    watch = hub.watch("topic=a")
    answers = [hub.offer([("topic", "a"), ("data", "x")], Idempotency_Key=KEY) for _ in range(3)]
    assert len({answer.text for answer in answers}) == 1
    assert [answer.headers.get("idempotency-replayed") for answer in answers] == [None, "true", "true"]
    assert [event.id for event in watch.events()] == [answers[0].text]
    hub.close()


def test_a_key_that_comes_from_many_at_once_is_one_publish(relayed: Channel) -> None:
    """5.1: sixteen connections race; one event, one id."""
    publishers = [relayed.publisher() for _ in range(16)]
    gate, ids = threading.Barrier(16), []

    def race(publisher: Publisher) -> None:
        gate.wait(10)
        ids.extend(publisher.offer({"data": "once"}, Idempotency_Key=KEY).ids)

    threads = [threading.Thread(target=race, args=(publisher,)) for publisher in publishers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(ids) == 16
    assert len(set(ids)) == 1
    assert [event.id for event in relayed.history()] == ids[:1]


@pytest.mark.parametrize("key", ["", "a b", "é", "x" * 256, "a\tb"])
def test_a_key_is_of_visible_ascii(relayed: Channel, key: str) -> None:
    """5.1: another one is refused, for two that look alike could be one."""
    assert relayed.publisher().offer({"data": "a"}, Idempotency_Key=key).status == 400
    assert relayed.publisher().offer({"data": "a"}, Idempotency_Key="!~" * 127 + "x").status == 200


def test_the_same_key_with_another_body_is_a_conflict(relayed: Channel) -> None:
    """5.2: whatever differs; the first event stays."""
    publisher = relayed.publisher()
    first = publisher.offer({"data": "a"}, Idempotency_Key=KEY)
    for event in (
        {"data": "b"},
        {"data": "a", "topic": "t"},
        {"data": "a", "private": True},
        {"data": "a", "type": "x"},
    ):
        answer = publisher.offer(event, Idempotency_Key=KEY)
        assert (answer.status, answer.fields["code"]) == (409, "conflict")
    assert_repeated(first, publisher.offer({"data": "a"}, Idempotency_Key=KEY))
    assert [event.id for event in relayed.history()] == first.ids


def test_a_key_expires(channel: StartChannel, relay: str) -> None:
    """5.3: counted from its first use, not from the last."""
    c = channel(relay=relay, idempotency_seconds=1)
    publisher = c.publisher()
    begin = time.monotonic()
    first = publisher.offer({"data": "a"}, Idempotency_Key=KEY).ids
    while (ids := publisher.offer({"data": "a"}, Idempotency_Key=KEY).ids) == first:
        assert time.monotonic() - begin < 4, "the key never expired"
        time.sleep(0.02)
    assert time.monotonic() - begin > 0.9
    assert [event.id for event in c.history()] == [*first, *ids]


def test_a_key_that_expired_takes_another_body(channel: StartChannel) -> None:
    """5.3: no conflict with what was forgotten."""
    c = channel(idempotency_seconds=1)
    publisher = c.publisher()
    assert publisher.offer({"data": "a"}, Idempotency_Key=KEY).status == 200
    begin = time.monotonic()
    while publisher.offer({"data": "b"}, Idempotency_Key=KEY).status == 409:
        assert time.monotonic() - begin < 4, "the key never expired"
        time.sleep(0.02)
    assert [event.data for event in c.history()] == ["a", "b"]


def test_a_key_belongs_to_its_publisher(channel: StartChannel) -> None:
    """5.4: another subject's key of the same name is another key, and tells nothing of the first."""
    holders = [token(ringcast={"c": {"publish": ["*"], "subscribe": ["*"]}}, sub=name) for name in ("shop-7", "shop-8")]
    c = channel(jwt_secret=TOKEN_SECRET, token=holders[0])
    other = c.beside(token=holders[1])
    first = c.publisher().offer({"data": "a"}, Idempotency_Key=KEY)
    second = other.publisher().offer({"data": "a"}, Idempotency_Key=KEY)
    third = other.publisher().offer({"data": "b"}, Idempotency_Key=KEY)
    assert first.ids != second.ids
    assert "idempotency-replayed" not in second.headers
    assert third.status == 409


def test_a_key_belongs_to_its_channel(channel: StartChannel) -> None:
    """5.4: the same key on another channel publishes there."""
    c = channel()
    d = c.beside(name="d")
    first, second = (one.publisher().offer({"data": "a"}, Idempotency_Key=KEY) for one in (c, d))
    assert "idempotency-replayed" not in second.headers
    assert ([event.id for event in c.history()], [event.id for event in d.history()]) == (first.ids, second.ids)


def test_the_sqlite_relay_remembers_keys_through_a_kill(channel: StartChannel, sqlite: str) -> None:
    """5.5: a publisher that never got its answer may ask the next process."""
    c = channel(relay=sqlite)
    first = c.publisher().offer({"data": "a"}, Idempotency_Key=KEY)
    c.node.kill()
    c.node.start()
    assert_repeated(first, c.publisher().offer({"data": "a"}, Idempotency_Key=KEY))
    assert c.publisher().offer({"data": "b"}, Idempotency_Key=KEY).status == 409
    assert [event.id for event in c.history()] == first.ids


def test_a_refused_publish_leaves_its_key_unused(relayed: Channel) -> None:
    """5.6: the publisher mends its event and sends it under the same key."""
    publisher = relayed.publisher()
    assert publisher.offer({"data": "a", "type": "gap"}, Idempotency_Key=KEY).status == 400
    good = publisher.offer({"data": "a", "type": "x"}, Idempotency_Key=KEY)
    assert good.status == 200
    assert "idempotency-replayed" not in good.headers
    assert [event.id for event in relayed.history()] == good.ids
