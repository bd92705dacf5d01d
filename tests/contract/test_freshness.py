"""Section 7 of the contract: a right ends when its token does, or when it is revoked, or its topic is."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack

import pytest

from tests.contract.client import Channel, Recorder, until
from tests.contract.conftest import StartChannel
from tests.harness.process import TOKEN_SECRET, wait_until
from tests.mercure.hub import PATH, token

WRITER = token(ringcast={"c": {"publish": ["*"]}})


def reader(expiry: float) -> str:
    """A token that may read everything until then."""
    return token(subscribe=["*"], ringcast={"c": {"subscribe": ["*"]}}, exp=expiry)


def test_streams_end_with_their_tokens(channel: StartChannel) -> None:
    """7.1: each at its own time, quiet or busy, and says why; a stream with a longer token goes on."""
    c = channel(jwt_secret=TOKEN_SECRET)
    now = int(time.time())
    ends = [now + 4, now + 4, now + 5]
    recorders = [Recorder(c.beside(token=reader(end)).stream(f"topic={number % 2}")) for number, end in enumerate(ends)]
    longer = Recorder(c.beside(token=reader(now + 60)).stream())
    c.token = WRITER
    publisher = c.publisher()
    while any(recorder.thread.is_alive() for recorder in recorders):
        event_id = publisher.publish("busy", topic="1")
        assert time.time() < now + 8, "the streams outlived their tokens"
        longer.wait_for(event_id)
    skew = time.time() - time.monotonic()
    for end, recorder in zip(ends, recorders, strict=True):
        assert recorder.failure is None
        assert recorder.stream.clean_end
        last = recorder.events[-1]
        assert (last.type, json.loads(last.data or "")["reconnect"]) == ("auth_expired", False)
        assert end - 1 <= recorder.times[-1] + skew <= end + 1.1
    assert longer.thread.is_alive()
    longer.stop()


def test_an_expired_token_opens_nothing(channel: StartChannel) -> None:
    """7.2: neither an EventSource nor another client, on any endpoint, and no publish."""
    c = channel(jwt_secret=TOKEN_SECRET)
    expiry = int(time.time()) + 4
    rights: dict[str, object] = {"ringcast": {"c": {"publish": ["*"], "subscribe": ["*"]}}, "exp": expiry}
    c.token = token(publish=["*"], subscribe=["*"], **rights)
    with ExitStack() as streams:
        assert streams.enter_context(c.stream()).status == 200
    wait_until(lambda: time.time() >= expiry, 10, "the token's end")
    bearer = {"Authorization": f"Bearer {c.token}"}
    assert c.stream().status == 401
    assert c.stream(Accept="*/*").status == 401
    assert c.node.get(f"{PATH}?topic=a", **bearer)[0] == 401
    assert c.publisher().offer({"data": "late"}).status == 401
    assert c.node.request("POST", PATH, "topic=a", Content_Type="application/x-www-form-urlencoded", **bearer)[0] == 401


def test_a_token_that_was_seen_before_still_expires(channel: StartChannel) -> None:
    """7.2: what was remembered of a token ends with it."""
    c = channel(jwt_secret=TOKEN_SECRET)
    expiry = int(time.time()) + 3
    c.token = token(ringcast={"c": {"publish": ["*"], "subscribe": ["*"]}}, exp=expiry)
    publisher = c.publisher()
    assert publisher.offer({"data": "x"}).status == 200
    wait_until(lambda: publisher.offer({"data": "x"}).status == 401, 10, "a refusal")
    assert expiry <= time.time() < expiry + 1
    assert c.stream().status == 401


def test_a_topic_that_is_revoked_ends_who_names_it_and_is_not_opened_by_name(keyed: Channel) -> None:
    """7.6, 7.7: by its selection or by its token's grant, word for word; the others go on."""
    topic, other = f"orders/{keyed.name}", f"others/{keyed.name}"

    def holder(*grants: str) -> Channel:
        return keyed.beside(token=token(ringcast={keyed.name: {"publish": ["*"], "subscribe": list(grants)}}))

    everything, this, both = holder("*"), holder(topic), holder(topic, other)
    ends = {
        "named": everything.stream(f"topic={topic}"),
        "named beside others": everything.stream(f"topic={other}&topic={topic}"),
        "granted": this.stream(),
        "granted beside others": both.stream(f"topic={other}"),
    }
    stays = {
        "everything": everything.stream(),
        "a template that matches it": everything.stream("topic=orders/{id}"),
        "another": everything.stream(f"topic={other}"),
        "granted by a template": holder("orders/{id}").stream(),
    }
    recorders = {name: Recorder(stream) for name, stream in (ends | stays).items()}
    wait_until(lambda: all(recorder.events for recorder in recorders.values()), 5, "the streams")
    headers = {"Authorization": f"Bearer {token(ringcast={'operate': True})}", "Content_Type": "application/json"}
    body = json.dumps({"topic": topic, "seconds": 60})
    assert keyed.node.request("POST", "/revocations", body, **headers)[0] == 200
    for name in ends:
        recorder = recorders.pop(name)
        recorder.thread.join(5)
        assert not recorder.thread.is_alive(), name
        assert (recorder.failure, recorder.events[-1].type) == (None, "revoked"), name
    path = f"/channels/{keyed.name}/events?topic={other}&topic={topic}"
    for alone in everything.each():
        wait_until(lambda alone=alone: alone.stream(f"topic={topic}").status == 403, 5, "the revocation on every node")
        status, _, answer = alone.node.get(path, Authorization=f"Bearer {everything.token}")
        assert (status, json.loads(answer)["field"]) == (403, "topic")
        for query in ("", f"topic={other}", "topic=orders/{id}"):
            assert alone.stream(query).status == 200
    for alone in this.each():
        assert alone.stream().status == 404  # nothing is left of its rights on this channel
    left = both.stream()
    secret = everything.publish("secret", topic=topic, private=True)
    own = everything.publish("own", topic=other, private=True)
    last = everything.publish("last", topic=other)
    assert [event.id for event in until(left, last)] == [own]
    for name in ("everything", "a template that matches it", "granted by a template"):
        recorders[name].wait_for(secret)
    recorders["another"].wait_for(last)
    for recorder in recorders.values():
        recorder.stop()


@pytest.mark.parametrize(("kind", "claim"), [("token", "jti"), ("subject", "sub"), ("tenant", "tenant")])
def test_what_is_revoked_ends_and_opens_nothing(keyed: Channel, kind: str, claim: str) -> None:
    """7.3, 7.4: the streams that it concerns say why and end, the others go on; only an operator may revoke."""
    rights = {keyed.name: {"publish": ["*"], "subscribe": ["*"]}}
    c = keyed.beside(token=token(ringcast=rights, **{claim: keyed.name}))
    other = keyed.beside(token=token(ringcast=rights, **{claim: "another"}))
    ends, stays = Recorder(c.stream()), Recorder(other.stream())
    wait_until(lambda: ends.events and stays.events, 5, "two streams")

    def revoke(holder: str | None) -> int:
        body = json.dumps({kind: keyed.name, "seconds": 60})
        headers = {"Authorization": f"Bearer {holder}", "Content_Type": "application/json"}
        return c.node.request("POST", "/revocations", body, **headers)[0]

    assert revoke(c.token) == 404
    assert revoke(token(ringcast={"operate": True})) == 200
    ends.thread.join(5)
    assert not ends.thread.is_alive()
    assert ends.failure is None
    last = ends.events[-1]
    assert (last.type, json.loads(last.data or "")["reconnect"]) == ("revoked", False)
    for node in c.each():
        wait_until(lambda node=node: node.stream().status == 401, 5, "the revocation on every node")
        assert node.offer({"data": "late"}).status == 401
    stays.wait_for(other.publish("goes on"))
    stays.stop()
