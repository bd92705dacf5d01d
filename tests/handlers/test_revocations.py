"""Revocations at the HTTP surface: who is refused by them, and by which of the ways to a stream."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from tornado.ioloop import IOLoop

from server.auth import Authenticator
from server.exchange import Response
from server.revocations import mark_of
from server.selectors import parse_selector
from tests.handlers.lodge import KEYED, MERCURE, Lodge, bearer, request
from tests.handlers.test_stream_routes import WAYS, house, reads, run, to_the_end
from tests.handlers.test_subscribe import EVENTS, OTHERS, READER, refused, subscribed
from tests.handlers.test_surface import Relay
from tests.server.engine import until


def close(lodge: Lodge, *topics: str) -> None:
    for topic in topics:
        lodge.rooms.authenticator.revocations.add(mark_of("topic", topic), time.time() + 60)


@pytest.mark.parametrize("path", [EVENTS, MERCURE])
def test_a_revoked_topic_is_refused_to_who_names_it_and_to_nobody_else(lodge: Lodge, path: str) -> None:
    close(lodge, "a/1", "b/{id}")
    for query in ("topic=a/1", "topic=x&topic=a/1", "topic=a%2F1", "topic=b/{id}"):
        found = refused(lodge, f"{path}?{query}")
        assert (found.status, found.code, found.field) == (403, "forbidden", "topic")
    for query in ("topic=a/{id}", "topic=*", "topic=a/1&topic=*", "topic=a/10", "topic=b/1"):
        assert subscribed(lodge, f"{path}?{query}")


@pytest.mark.parametrize("own_settings", [KEYED])
def test_a_grant_that_names_a_revoked_topic_counts_for_nothing(
    lodge: Lodge, io_loop: IOLoop, own_settings: dict[str, Any]
) -> None:
    io_loop.run_sync(lambda: lodge.rooms.open("prices"))
    close(lodge, "a")
    both = bearer(ringcast={"prices": {"subscribe": ["a", "b"]}})
    only = bearer(ringcast={"prices": {"subscribe": ["a"]}})
    assert subscribed(lodge, OTHERS, **both).selection.grants == (parse_selector("b"),)
    assert refused(lodge, OTHERS, **only).status == 404
    assert subscribed(lodge, EVENTS, **bearer(**READER)).selection.grants == ()
    for everything in (["a", "*"], ["*"]):
        grants = bearer(ringcast={"prices": {"subscribe": everything}})
        assert subscribed(lodge, OTHERS, **grants).selection.grants is None


def test_without_revocations_nothing_of_a_selection_is_looked_at(lodge: Lodge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Authenticator, "is_closed", lambda *_: pytest.fail("looked at"))
    assert subscribed(lodge, f"{EVENTS}?topic=a")


# --- who is revoked on the way to its stream


@pytest.mark.gen_test
@pytest.mark.parametrize("own_settings", [KEYED])
@pytest.mark.parametrize(("mark", "status"), [("subject me", 401), ("topic a", 403), ("topic b", 0)])
async def test_who_is_revoked_while_it_waits_for_the_relay_is_refused(
    lodge: Lodge, monkeypatch: pytest.MonkeyPatch, own_settings: dict[str, Any], mark: str, status: int
) -> None:
    """The revocation found no stream to end."""
    relay = Relay(lodge, monkeypatch)
    asked = request(f"{EVENTS}?topic=a", **bearer(sub="me", mercure={"subscribe": ["a", "b"]}))
    wanted = lodge.subscriber.subscribe(asked)
    assert wanted is not None
    waits = asyncio.ensure_future(lodge.surface.find(lodge.node.opener, wanted, asked))
    await until(lambda: relay.asked == 1)
    lodge.rooms.authenticator.revocations.add(mark, time.time() + 60)
    relay.goes_on.set()
    answer = await waits
    assert (answer.status if isinstance(answer, Response) else 0) == status
    if not status:
        assert wanted.selection.named == {"a"}  # what it may read of the other topic is gone


@WAYS
def test_a_topic_that_is_revoked_ends_an_applications_streams_of_it_and_opens_none(waiting: bool) -> None:
    async def main() -> None:
        async with house(waiting) as one:
            ends, stays = await one.open(), await one.open("/api/stream/things/2")
            await one.cluster.revoke("topic", "things/1", 60)
            assert [block.type for block in await to_the_end(ends)] == ["revoked"]
            status, error = await one.refusal("/api/stream/things/1")
            assert (status, error["code"], error["field"]) == (403, "forbidden", "topic")
            await one.publish("more", topic="things/2")
            assert await reads(stays, 1) == ["more"]

    run(main())


@WAYS
@pytest.mark.parametrize(("kind", "value", "status"), [("subject", "me", 401), ("topic", "things/1", 403)])
def test_who_is_revoked_during_admission_gets_no_stream(waiting: bool, kind: str, value: str, status: int) -> None:
    async def main() -> None:
        async with house(waiting, KEYED) as one:
            notice = json.dumps({kind: value, "until": time.time() + 60}).encode()

            def revoked_meanwhile(thing: str) -> list[str]:
                one.cluster.noticed(notice)
                return [f"things/{thing}"]

            one.admission.topics = revoked_meanwhile
            assert (await one.refusal("/api/stream/things/1", **bearer(sub="me")))[0] == status

    run(main())
