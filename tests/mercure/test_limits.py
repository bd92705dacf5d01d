"""Limits of connections and sizes: rows S8, A17 and 1.10. tests/contract has what an EventSource sees of a refusal."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable

import pytest

from tests.harness.process import TOKEN_SECRET
from tests.mercure.conftest import PUBLISHER
from tests.mercure.hub import Hub, token


@pytest.mark.parametrize(
    ("settings", "status", "code"),
    [({"max_connections": 2}, 503, "overloaded"), ({"max_connections_per_address": 2}, 429, "too_many")],
)
def test_connections_have_limits(
    new_hub: Callable[..., Hub], topic: str, settings: dict[str, int], status: int, code: str
) -> None:
    """S8: the third is refused and may come back, the two stay."""
    hub = new_hub(**settings)
    watches = [hub.watch([("topic", topic)]) for _ in range(2)]
    answer = hub.get([("topic", topic)])
    assert (answer.status, answer.error["code"]) == (status, code)
    assert int(answer.headers["retry-after"]) > 0
    hub.publish(topic, "here")
    assert [watch.data() for watch in watches] == [["here"], ["here"]]


def test_a_subject_has_a_share(new_hub: Callable[..., Hub], topic: str) -> None:
    """A17: counted by `sub`; another subject's share is its own."""
    hub = new_hub(PUBLISHER, jwt_secret=TOKEN_SECRET, max_connections_per_subject=2)
    one, other = ({"Authorization": f"Bearer {token(subscribe=[], sub=name)}"} for name in ("one", "other"))
    assert [hub.subscribe([("topic", topic)], **one).next_event().type for _ in range(3)] == [
        "hello",
        "hello",
        "too_many",
    ]
    assert hub.subscribe([("topic", topic)], **other).next_event().type == "hello"
    assert hub.get([("topic", topic)], **one).status == 429


def test_a_refusal_before_the_selection_is_judged_is_none(new_hub: Callable[..., Hub]) -> None:
    """S8: a full node still tells a bad request that it is one."""
    hub = new_hub(max_connections=1)
    assert hub.subscribe("topic=a").next_event().type == "hello"
    assert hub.get("").status == 400


@pytest.mark.parametrize("size", [1, 40, 5_000, 60_000])
def test_tokens_of_any_size_are_judged_quickly(keyed_hub: Hub, topic: str, size: int) -> None:
    """1.10: too short or too long to be one is 401, or 400 or 431 where the head itself is too large."""
    assert keyed_hub.get([("topic", topic)], Authorization=f"Bearer {'x' * size}").status in (400, 401, 431)
    claims = {"mercure": {"subscribe": ["x" * size]}}
    text = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    assert keyed_hub.get([("topic", topic)], Authorization=f"Bearer e30.{text}.x").status in (400, 401, 431)


def test_the_heartbeat_has_a_default(hub: Hub, topic: str) -> None:
    """1.10: thirty seconds, told to the client, below what proxies bear."""
    assert hub.watch([("topic", topic)]).hello()["heartbeat_seconds"] == 30
