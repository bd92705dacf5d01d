"""Google Pub/Sub: names of subscriptions, messages, and settings that can't be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest

from bridges.mapping import Mapping, Unmappable
from bridges.pubsub import by_subscription, read_envelope
from bridges.pubsub_push import PubSubPush
from bridges.running import Sources
from config.settings import Settings
from handlers.endpoints import Endpoint
from tests.bridges.conftest import bridge, mapping
from tests.bridges.google import AUDIENCE, EMAIL, SUBSCRIPTION, envelope
from tests.bridges.recording_hub import RecordingHub
from tests.bridges.test_bridge_settings import problem

PUSH = bridge("pubsub", "p", mapping(SUBSCRIPTION), delivery="push", audience=AUDIENCE, email=EMAIL)


def test_a_subscription_is_of_the_project_unless_it_names_one() -> None:
    one, other, third = Mapping("orders", channel="a"), Mapping(SUBSCRIPTION, channel="b"), Mapping("orders")
    found = by_subscription([one, other, third], "mine")
    assert found == {"projects/mine/subscriptions/orders": [one, third], SUBSCRIPTION: [other]}
    with pytest.raises(ValueError, match="the subscription orders needs its project"):
        by_subscription([one], None)


def test_an_envelope_is_a_message() -> None:
    message = read_envelope(json.dumps(envelope("1", "text", orderingKey="k")).encode())
    assert (message.source, message.body, message.id) == (SUBSCRIPTION, b"text", f"{SUBSCRIPTION}:1")
    assert message.attributes["order"] == "7"
    assert Mapping("", channel="c", topics=["{subject[3]}"]).publications(message)[0].event.topics == ("orders",)


def test_an_envelope_may_have_either_spelling_and_no_data() -> None:
    message = read_envelope(json.dumps({"message": {"message_id": "1"}, "subscription": "s"}).encode())
    assert (message.body, message.id, message.attributes) == (b"", "s:1", {"googMessageId": "1"})


def test_no_publisher_sets_what_pub_sub_says() -> None:
    message = read_envelope(json.dumps(envelope("1", attributes={"googMessageId": "2"})).encode())
    assert message.attributes["googMessageId"] == "1"


@pytest.mark.parametrize("body", [b"\xff", b'{"message": {"messageId": "\\ud800"}}', b"[" * 100_000, b"1", b"null"])
def test_what_is_no_envelope_is_told_of_without_its_content(body: bytes) -> None:
    with pytest.raises(Unmappable) as caught:
        read_envelope(body)
    assert "\\ud800" not in str(caught.value)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (PUSH | {"audience": None}, "bridge p: needs an audience, or pubsub_audience: without, anybody could push"),
        (PUSH | {"email": ""}, "bridge p: needs an email, or pubsub_email: without, anybody could push"),
        (PUSH | {"delivery": "both"}, "bridge p: delivery: must be 'pull' or 'push'"),
        (PUSH | {"max_waiting": 0}, "bridge p: max_waiting: must be greater than or equal to 1"),
        (PUSH | {"max_waiting": 1_001}, "bridge p: max_waiting: must be less than or equal to 1000"),
        (PUSH | {"mappings": [mapping("a*")]}, "'a*' is not a subscription: NAME, or projects/PROJECT/subscriptions/"),
        (PUSH | {"mappings": [mapping("projects/p/topics/orders")]}, "is not a subscription"),
        (bridge("pubsub", "p", mapping("orders")), "bridge p: needs pubsub_project, or a subscription's whole name"),
    ],
)
def test_a_slip_is_told_of_with_the_bridge(wanted: Any, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert said in problem(wanted, monkeypatch=monkeypatch)


@pytest.mark.parametrize("url", ["", "pubsub.googleapis.com", "ftp://h", "https://", "https://h/path", "http://u:p@h"])
def test_an_address_of_pub_sub_is_one(url: str) -> None:
    with pytest.raises(ValueError, match="must be https://HOST"):
        Settings(pubsub_url=url)


def sources(**settings: Any) -> Sources:
    hub: Any = RecordingHub()
    return Sources(Settings(**settings), hub, "n")


def test_an_application_pulls_or_is_pushed_to() -> None:
    mappings = [Mapping("jobs", channel="jobs", topics=["t"])]
    pulled = sources(pubsub_project="mine").pubsub("jobs", mappings)
    assert (pulled.kind, pulled.state) == ("pubsub", "not connected yet")
    made = sources(pubsub_project="mine", pubsub_audience=AUDIENCE, pubsub_email=EMAIL)
    pushed = made.pubsub("jobs", mappings, push=made.pusher())
    assert isinstance(pushed, PubSubPush)
    assert [one.path for one in pushed.endpoints] == ["/bridges/pubsub/jobs"]
    with pytest.raises(ValueError, match="pushes need an audience and an email"):
        sources().pusher()


def test_an_endpoint_that_judges_heads_has_a_path_that_is_found_before_the_body() -> None:
    with pytest.raises(ValueError, match="not judged by its head"):
        Endpoint("POST", "/bridges/{name}", cast(Any, None), "", head=lambda _: None)


def test_keys_come_from_no_address_that_anybody_could_answer(tmp_path: Path) -> None:
    made = sources(pubsub_jwks_url="http://keys.example.com/")
    with pytest.raises(ValueError, match="https://"):
        made.pubsub("p", [Mapping(SUBSCRIPTION)], push=made.pusher(AUDIENCE, EMAIL))
