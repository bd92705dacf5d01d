"""Google Pub/Sub's pull, with the real emulator: once, in the order of a key, and what is acknowledged when."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from bridges import pubsub_pull
from bridges.bridge import SourceLost
from bridges.mapping import Mapping, Message
from bridges.pubsub import by_subscription
from bridges.pubsub_connection import PubSubConnection, PubSubTarget, connect
from bridges.pubsub_pull import PubSubPull
from tests.bridges.conftest import bridge, data, facts, listen, mapping, settings, state, until, until_active
from tests.bridges.google import EMAIL, KEY
from tests.bridges.recording_hub import RecordingHub
from tests.conftest import StartNode
from tests.harness.process import ROOT, Node, wait_until
from tests.harness.pubsub import PROJECT, PubSubEmulator, subscription_path
from tests.server.relay.bench import run


def pulling(emulator: PubSubEmulator, *mappings: dict[str, Any], **fields: Any) -> dict[str, object]:
    """Settings of a node that pulls from these."""
    return settings(bridge("pubsub", "p", *mappings, **fields), **at(emulator))


def at(emulator: PubSubEmulator) -> dict[str, object]:
    return {"pubsub_url": emulator.url, "pubsub_project": PROJECT}


SEEN = {
    "from": "{subject[3]}",
    "id": "{attributes.googMessageId}",
    "key": "{attributes.googOrderingKey}",
    "own": "{attributes.colour}",
    "body": "{json.n}",
}
BRIDGES = (
    bridge("pubsub", "ordered", mapping("ordered-in", "ordered")),
    bridge("pubsub", "seen", mapping(subscription_path("seen-in"), "{attributes.colour}", data=SEEN)),
    bridge("pubsub", "shared", *(mapping(f"shared-{one}", "shared", data=f"{one} {{body}}") for one in "ab")),
    bridge("pubsub", "poisoned", mapping("poisoned-in", "poisoned", data="{json.n}")),
    bridge("pubsub", "dead", mapping("dead-in", "dead", data="{json.n}"), dead_letter=True),
    bridge("pubsub", "late", mapping("late-in", "late"), mapping("beside-in", "late")),
)


@pytest.fixture(scope="module")
def pulled(tmp_path_factory: pytest.TempPathFactory, emulator: PubSubEmulator) -> Iterator[Node]:
    """A node that pulls by several bridges; one of its subscriptions is missing."""
    emulator.make("ordered", "ordered-in", ordered=True)
    emulator.publish("ordered", *map(str, range(250)), key="a")
    emulator.make("seen", "seen-in", ordered=True)
    emulator.make("shared", "shared-a", "shared-b")
    emulator.make("poisoned", "poisoned-in", ordered=True)
    emulator.make("dead", "dead-in")
    emulator.make("beside", "beside-in")
    server = Node(tmp_path_factory.mktemp("pulled"), **settings(*BRIDGES, **at(emulator))).start()
    until_active(server, *(str(one["name"]) for one in BRIDGES))
    yield server
    server.kill()


def until_acknowledged(node: Node, name: str, emulator: PubSubEmulator, number: int) -> None:
    """Wait until so many messages have entered, and none of them can come again."""
    wait_until(lambda: facts(node, name)["published"] >= number, 30, "the bridge")
    wait_until(lambda: facts(node, name)["lag"] == 0, what="the acknowledgements")
    assert emulator.waiting(f"{name}-in") == []


def test_what_waited_and_what_comes_later_enters_in_the_order_of_its_key(
    emulator: PubSubEmulator, pulled: Node
) -> None:
    with listen(pulled, "ordered&last=1000") as stream:
        emulator.publish("ordered", *map(str, range(250, 300)), key="a")
        assert data(stream, 300) == [str(number) for number in range(300)]
    until_acknowledged(pulled, "ordered", emulator, 300)
    wait_until(lambda: state(pulled, "ordered") == "ok", what="the source")
    assert b'ringcast_bridge_active{bridge="ordered"} 1.0' in pulled.get("/metrics")[2]


def test_a_message_is_mapped_with_what_pub_sub_says_of_it(emulator: PubSubEmulator, pulled: Node) -> None:
    with listen(pulled, "blue") as stream:
        [message_id] = emulator.publish("seen", '{"n": 5}', key="k", colour="blue")
        [text] = data(stream, 1)
    assert json.loads(text) == {"from": "seen-in", "id": message_id, "key": "k", "own": "blue", "body": 5}


def test_two_subscriptions_of_one_topic_bring_every_message_each(emulator: PubSubEmulator, pulled: Node) -> None:
    with listen(pulled, "shared") as stream:
        emulator.publish("shared", "1")
        assert sorted(data(stream, 2)) == ["a 1", "b 1"]


def test_poison_is_acknowledged_and_what_is_behind_it_goes_on(emulator: PubSubEmulator, pulled: Node) -> None:
    with listen(pulled, "poisoned") as stream:
        emulator.publish("poisoned", '{"n":1}', "poison", "\x00", '{"n":2}', key="a")
        assert data(stream, 2) == ["1", "2"]
    until_acknowledged(pulled, "poisoned", emulator, 2)
    assert facts(pulled, "poisoned")["unmappable"] == 2


def test_with_a_dead_letter_topic_poison_is_given_back(emulator: PubSubEmulator, pulled: Node) -> None:
    emulator.publish("dead", "poison", '{"n":1}')
    wait_until(lambda: facts(pulled, "dead")["unmappable"] > 1, what="the message, again")
    wait_until(lambda: facts(pulled, "dead")["published"] >= 1, what="the other message")
    assert facts(pulled, "dead")["published"] == 1


def test_a_subscription_that_is_not_there_is_said_others_are_read_and_it_is_found_once_it_is_there(
    emulator: PubSubEmulator, pulled: Node
) -> None:
    wait_until(lambda: state(pulled, "late") == "there is no such subscription", what="the refusal")
    with listen(pulled, "late") as stream:
        emulator.publish("beside", "1")
        assert data(stream, 1) == ["1"]
        emulator.make("late", "late-in")
        wait_until(lambda: state(pulled, "late") == "ok", what="the bridge's state")
        emulator.publish("late", "2")
        assert data(stream, 1) == ["2"]
    assert facts(pulled, "late")["repeated"] == 0


# --- in this process, with a log that is away as long as a test wants


@contextmanager
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(pubsub_pull, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(pubsub_pull, "FIRST_DELAY_SECONDS", 0.2)
    monkeypatch.setattr(pubsub_pull, "LONGEST_DELAY_SECONDS", 0.4)
    with structlog.testing.capture_logs():
        yield


def in_process(emulator: PubSubEmulator, hub: Any, *mappings: Mapping, **options: Any) -> PubSubPull:
    return PubSubPull("p", hub, PubSubTarget(emulator.url), by_subscription(mappings, PROJECT), **options)


def to_main(subscription: str) -> Mapping:
    return Mapping(subscription, channel="main", topics=["t"])


def test_nothing_is_acknowledged_before_it_is_appended_and_no_more_is_asked_for(
    emulator: PubSubEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Backpressure: what the log has not taken stays in Pub/Sub, but for a bounded number."""
    emulator.make("slow", "slow-in")
    emulator.publish("slow", *map(str, range(100)))

    async def main() -> None:
        hub = RecordingHub()
        hub.gate.clear()
        one = in_process(emulator, hub, to_main("slow-in"), max_waiting=10)
        task = asyncio.ensure_future(one.run())
        await until(lambda: hub.calls)
        assert 0 < one.counts.lag <= 10
        hub.gate.set()
        await until(lambda: len(hub.data) == 100)
        assert hub.most_under_way <= 10
        await one.stop()
        await task

    with quick(monkeypatch):
        run(main())
    assert emulator.waiting("slow-in") == []


def test_what_was_given_back_comes_again_one_at_a_time_and_enters_once(
    emulator: PubSubEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In whatever order: the emulator puts what is given back behind the rest, even of an ordering key."""
    emulator.make("away", "away-in")
    emulator.publish("away", *map(str, range(50)))

    async def main() -> None:
        hub = RecordingHub()
        hub.away = True
        one = in_process(emulator, hub, to_main("away-in"))
        task = asyncio.ensure_future(one.run())
        await until(lambda: one.counts.received > 50, 30)  # they came again
        first = one.counts.received
        await until(lambda: one.counts.received > first)
        assert one.counts.received == first + 1
        assert one.state == "the log is away"
        hub.forget, hub.away = 5, False
        await until(lambda: len(hub.data) == 50, 30)
        assert sorted(hub.data) == sorted(f"main {number}" for number in range(50))
        await one.stop()
        await task

    with quick(monkeypatch):
        run(main())
    assert emulator.waiting("away-in") == []


def test_while_an_append_takes_long_leases_are_extended_and_nothing_is_given_to_another(
    emulator: PubSubEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a second each time, so that one that is not extended any more would come again soon."""
    extended: list[int] = []
    extend = PubSubConnection.extend

    async def counted(self: PubSubConnection, subscription: str, ack_ids: Sequence[str], seconds: int) -> None:
        await extend(self, subscription, ack_ids, seconds)
        extended.append(len(ack_ids))

    monkeypatch.setattr(PubSubConnection, "extend", counted)
    monkeypatch.setattr(pubsub_pull, "EXTEND_EVERY_SECONDS", 0.2)
    monkeypatch.setattr(pubsub_pull, "EXTEND_SECONDS", 1)
    emulator.make("held", "held-in")
    emulator.publish("held", "1", "2")

    async def main() -> None:
        hub = RecordingHub()
        hub.gate.clear()
        one = in_process(emulator, hub, to_main("held-in"))
        task = asyncio.ensure_future(one.run())
        await until(lambda: len(extended) > 12)
        assert await asyncio.to_thread(emulator.waiting, "held-in") == []
        hub.gate.set()
        await until(lambda: len(hub.data) == 2)
        await one.stop()
        await task
        assert one.counts.received == 2

    with quick(monkeypatch):
        run(main())
    assert emulator.waiting("held-in") == []


def test_a_handler_takes_messages_itself(emulator: PubSubEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
    emulator.make("handled", "handled-in")
    emulator.publish("handled", "x", job="7")
    seen: list[Message] = []

    async def handler(message: Message) -> None:
        seen.append(message)

    async def main() -> None:
        one = in_process(emulator, RecordingHub(), Mapping("handled-in", handler=handler))
        task = asyncio.ensure_future(one.run())
        await until(lambda: seen)
        await one.stop()
        await task

    with quick(monkeypatch):
        run(main())
    assert (seen[0].body, seen[0].attributes["job"]) == (b"x", "7")
    assert seen[0].source == subscription_path("handled-in")


# --- without


def test_pub_sub_that_does_not_answer_is_said(node: StartNode) -> None:
    wanted = bridge("pubsub", "p", mapping("orders"))
    one = node(**settings(wanted, pubsub_url="http://127.0.0.1:1", pubsub_project=PROJECT))
    wait_until(lambda: state(one, "p") == "Pub/Sub does not answer", 20, "the bridge's state")


def test_credentials_that_are_none_are_said(node: StartNode) -> None:
    wanted = bridge("pubsub", "p", mapping("orders"))
    one = node(**settings(wanted, pubsub_credentials="/no/such/file", pubsub_project=PROJECT))
    wait_until(lambda: "credentials" in state(one, "p"), 20, "the bridge's state")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, "Pub/Sub does not answer"),
        ({"private_key": "nonsense"}, "the credentials for Pub/Sub cannot be used"),
        ({"client_email": None}, "the credentials for Pub/Sub cannot be used"),
    ],
)
def test_a_key_file_of_a_service_account_is_used(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    key = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    account = {
        "type": "service_account",
        "client_email": EMAIL,
        "private_key": key,
        "private_key_id": "1",
        "token_uri": "http://127.0.0.1:1/token",
    }
    path = tmp_path / "key.json"
    path.write_text(json.dumps({name: value for name, value in (account | changes).items() if value is not None}))

    async def main() -> None:
        with pytest.raises(SourceLost) as caught:
            await connect(PubSubTarget("https://127.0.0.1:1", str(path)))
        assert caught.value.reason == reason

    run(main())


START = """
import sys
sys.modules.update(dict.fromkeys(("google", "google.auth", "google.pubsub_v1", "grpc")))
from server.__main__ import cli
cli(["serve", "--port", "0"])
"""


def test_without_the_library_a_node_that_pulls_does_not_start_and_says_why() -> None:
    wanted = settings(bridge("pubsub", "p", mapping("orders")), pubsub_project=PROJECT, apps="none")
    environment = {f"RINGCAST_{name.upper()}": str(value) for name, value in wanted.items()}
    done = subprocess.run([sys.executable, "-c", START], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "bridge p: needs the package google-cloud-pubsub (ringcast[pubsub])" in done.stdout + done.stderr
