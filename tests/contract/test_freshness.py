"""Section 7 of the contract: a right ends when its token does."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack

from tests.contract.client import Recorder
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
    ends = [now + 2, now + 2, now + 3]
    recorders = [Recorder(c.beside(token=reader(end)).stream(f"topic={number % 2}")) for number, end in enumerate(ends)]
    longer = Recorder(c.beside(token=reader(now + 60)).stream())
    c.token = WRITER
    publisher = c.publisher()
    while any(recorder.thread.is_alive() for recorder in recorders):
        event_id = publisher.publish("busy", topic="1")
        assert time.time() < now + 6, "the streams outlived their tokens"
        time.sleep(0.01)
    skew = time.time() - time.monotonic()
    for end, recorder in zip(ends, recorders, strict=True):
        assert recorder.failure is None
        assert recorder.stream.clean_end
        last = recorder.events[-1]
        assert (last.type, json.loads(last.data or "")["reconnect"]) == ("auth_expired", False)
        assert end - 1 <= recorder.times[-1] + skew <= end + 1.1
    longer.wait_for(event_id)
    longer.stop()


def test_an_expired_token_opens_nothing(channel: StartChannel) -> None:
    """7.2: neither an EventSource nor another client, on any endpoint, and no publish."""
    c = channel(jwt_secret=TOKEN_SECRET)
    expiry = int(time.time()) + 1
    rights: dict[str, object] = {"ringcast": {"c": {"publish": ["*"], "subscribe": ["*"]}}, "exp": expiry}
    c.token = token(publish=["*"], subscribe=["*"], **rights)
    with ExitStack() as streams:
        assert streams.enter_context(c.stream()).status == 200
    wait_until(lambda: time.time() >= expiry, 3, "the token's end")
    bearer = {"Authorization": f"Bearer {c.token}"}
    assert c.stream().status == 401
    assert c.stream(Accept="*/*").status == 401
    assert c.node.get(f"{PATH}?topic=a", **bearer)[0] == 401
    assert c.publisher().offer({"data": "late"}).status == 401
    assert c.node.request("POST", PATH, "topic=a", Content_Type="application/x-www-form-urlencoded", **bearer)[0] == 401


def test_a_token_that_was_seen_before_still_expires(channel: StartChannel) -> None:
    """7.2: what was remembered of a token ends with it."""
    c = channel(jwt_secret=TOKEN_SECRET)
    expiry = int(time.time()) + 2
    c.token = token(ringcast={"c": {"publish": ["*"], "subscribe": ["*"]}}, exp=expiry)
    publisher = c.publisher()
    statuses = set()
    while time.time() < expiry:
        statuses.add(publisher.offer({"data": "x"}).status if time.time() < expiry - 0.2 else 200)
        time.sleep(0.01)
    assert statuses == {200}
    assert publisher.offer({"data": "x"}).status == 401
    assert c.stream().status == 401
