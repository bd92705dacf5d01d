"""Section 7 of the contract: a right ends when its token does, or when it is revoked."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack

import pytest

from tests.contract.client import Channel, Recorder
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
