"""Section 5 of the contract: a publish that is sent again, to the same node or to another."""

from __future__ import annotations

import threading
import time

import pytest

from tests.contract.client import JSON, NDJSON, Answer, Channel, Publisher
from tests.contract.conftest import StartChannel
from tests.harness.process import wait_until
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
def test_the_same_key_and_body_are_one_publish(spread: Channel, body: str, content_type: str) -> None:
    """5.1: the same ids, no new event, on whichever node the key comes again."""
    first = spread.publisher().post(body, content_type, Idempotency_Key=KEY)
    for _ in range(3):
        assert_repeated(first, spread.publisher().post(body, content_type, Idempotency_Key=KEY))
    assert [event.id for event in spread.history()] == first.ids


def test_the_mercure_endpoint_knows_keys_too(relayed: Channel) -> None:
    """5.1: with the id as the answer's body."""
    hub = Hub(relayed.node)
    watch = hub.watch(f"topic={relayed.name}")
    answers = [hub.offer([("topic", relayed.name), ("data", "x")], Idempotency_Key=KEY) for _ in range(3)]
    assert len({answer.text for answer in answers}) == 1
    assert [answer.headers.get("idempotency-replayed") for answer in answers] == [None, "true", "true"]
    assert [event.id for event in watch.events()] == [answers[0].text]
    hub.close()


def test_a_key_that_comes_from_many_at_once_is_one_publish(spread: Channel) -> None:
    """5.1: sixteen connections race, over all nodes; one event, one id."""
    publishers = [spread.publisher() for _ in range(16)]
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
    assert [event.id for event in spread.history()] == ids[:1]


@pytest.mark.parametrize("key", ["", "a b", "é", "x" * 256, "a\tb"])
def test_a_key_is_of_visible_ascii(relayed: Channel, key: str) -> None:
    """5.1: another one is refused, for two that look alike could be one."""
    assert relayed.publisher().offer({"data": "a"}, Idempotency_Key=key).status == 400
    assert relayed.publisher().offer({"data": "a"}, Idempotency_Key="!~" * 127 + "x").status == 200


def test_the_same_key_with_another_body_is_a_conflict(spread: Channel) -> None:
    """5.2: whatever differs, on whichever node; the first event stays."""
    first = spread.offer({"data": "a"}, Idempotency_Key=KEY)
    for event in (
        {"data": "b"},
        {"data": "a", "topic": "t"},
        {"data": "a", "private": True},
        {"data": "a", "type": "x"},
    ):
        for _ in spread.nodes:
            answer = spread.offer(event, Idempotency_Key=KEY)
            assert (answer.status, answer.fields["code"]) == (409, "conflict")
    assert_repeated(first, spread.offer({"data": "a"}, Idempotency_Key=KEY))
    assert [event.id for event in spread.history()] == first.ids


def test_a_key_expires(channel: StartChannel, relay: str) -> None:
    """5.3: counted from its first use, not from the last; then another body is no conflict either."""
    c = channel(relay=relay, idempotency_seconds=1)
    publisher = c.publisher()
    begin = time.monotonic()
    ids = publisher.offer({"data": "a"}, Idempotency_Key=KEY).ids
    other = publisher.offer({"data": "a"}, Idempotency_Key="other").ids

    def is_new() -> bool:
        ids.extend(publisher.offer({"data": "a"}, Idempotency_Key=KEY).ids)
        return ids[-1] != ids[0]

    wait_until(is_new, 10, "a key that expired")
    assert time.monotonic() - begin > 0.9
    wait_until(lambda: publisher.offer({"data": "b"}, Idempotency_Key="other").status == 200, 10, "another body")
    events = c.history()
    assert [event.id for event in events[:3]] == [ids[0], *other, ids[-1]]
    assert [event.data for event in events] == ["a", "a", "a", "b"]


def test_a_key_belongs_to_its_publisher(keyed: Channel) -> None:
    """5.4: another subject's key of the same name is another key, and tells nothing of the first; another token of the
    same subject is the same publisher, on every node.
    """
    rights = {keyed.name: {"publish": ["*"], "subscribe": ["*"]}}
    subjects = ("shop-7", "shop-8", "shop-7")
    first, other, again = (
        keyed.beside(token=token(ringcast=rights, sub=name, number=number)) for number, name in enumerate(subjects)
    )
    answers = [one.offer({"data": "a"}, Idempotency_Key=KEY) for one in (first, other, again)]
    assert answers[0].ids != answers[1].ids
    assert "idempotency-replayed" not in answers[1].headers
    assert_repeated(answers[0], answers[2])
    assert other.offer({"data": "b"}, Idempotency_Key=KEY).status == 409


def test_a_key_belongs_to_its_channel(spread: Channel) -> None:
    """5.4: the same key on another channel publishes there."""
    c, d = spread, spread.beside(name=f"{spread.name}-other")
    first, second = (one.offer({"data": "a"}, Idempotency_Key=KEY) for one in (c, d))
    assert "idempotency-replayed" not in second.headers
    assert ([event.id for event in c.history()], [event.id for event in d.history()]) == (first.ids, second.ids)


def test_a_lasting_relay_remembers_keys_through_a_kill(channel: StartChannel, lasting_relay: str) -> None:
    """5.5: a publisher that never got its answer may ask the next process."""
    c = channel(relay=lasting_relay)
    first = c.offer({"data": "a"}, Idempotency_Key=KEY)
    c.node.kill()
    c.node.start()
    assert_repeated(first, c.offer({"data": "a"}, Idempotency_Key=KEY))
    assert c.offer({"data": "b"}, Idempotency_Key=KEY).status == 409
    assert [event.id for event in c.history()] == first.ids


def test_a_refused_publish_leaves_its_key_unused(spread: Channel) -> None:
    """5.6: the publisher mends its event and sends it under the same key."""
    assert spread.offer({"data": "a", "type": "gap"}, Idempotency_Key=KEY).status == 400
    good = spread.offer({"data": "a", "type": "x"}, Idempotency_Key=KEY)
    assert good.status == 200
    assert "idempotency-replayed" not in good.headers
    assert [event.id for event in spread.history()] == good.ids
