"""Reconnection and history: rows H1 to H11."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.harness.stream import Block
from tests.mercure.hub import Hub, Watch, token


def gap_of(blocks: list[Block]) -> dict[str, str | None] | None:
    """The facts of the gap that comes first, or None."""
    return dict(json.loads(blocks[0].data or "")) if blocks and blocks[0].type == "gap" else None


def payloads(watch: Watch) -> list[str | None]:
    """What came up to now, without control events."""
    return [block.data for block in watch.events() if block.type == "message"]


def test_every_event_carries_its_id(hub: Hub, topic: str) -> None:
    """H1: the same id that the publisher was told."""
    watch = hub.watch([("topic", topic)])
    ids = [hub.publish(topic, str(number)) for number in range(5)] + [hub.publish(topic, "own", id=f"urn:own:{topic}")]
    assert [block.id for block in watch.events()] == ids


def test_the_header_beats_the_query(hub: Hub, topic: str) -> None:
    """H2: a browser's own memory is newer than the page's."""
    first, second = hub.publish(topic, "1"), hub.publish(topic, "2")
    hub.publish(topic, "3")
    watch = hub.watch([("topic", topic), ("last_event_id", first)], Last_Event_ID=second)
    assert payloads(watch) == ["3"]
    assert watch.headers["mercure-last-event-id"] == second


def test_an_empty_header_falls_through_to_the_query(hub: Hub, topic: str) -> None:
    """H2: it says nothing."""
    first = hub.publish(topic, "1")
    hub.publish(topic, "2")
    assert payloads(hub.watch([("topic", topic), ("last_event_id", first)], Last_Event_ID="")) == ["2"]


@pytest.mark.parametrize("name", ["last_event_id", "lastEventID", "lastEventId", "Last-Event-ID"])
def test_every_name_of_the_cursor_parameter_is_read(hub: Hub, topic: str, name: str) -> None:
    """H3, 1.11: two drafts, the oldest hubs and the polyfills."""
    first = hub.publish(topic, "1")
    hub.publish(topic, "2")
    watch = hub.watch([("topic", topic), (name, first)])
    assert payloads(watch) == ["2"]
    assert watch.headers["mercure-last-event-id"] == first


def test_the_names_have_an_order(hub: Hub, topic: str) -> None:
    """H3: the newest name first, whatever stands first in the query; an empty one says nothing."""
    ids = [hub.publish(topic, str(number)) for number in range(4)]
    names = ["last_event_id", "lastEventID", "lastEventId", "Last-Event-ID"]
    for best in range(4):
        query = [("topic", topic), *((names[number], ids[number]) for number in reversed(range(best, 4)))]
        assert hub.subscribe(query).headers["last-event-id"] == ids[best]


def test_a_client_that_sends_both_old_names_is_understood(hub: Hub, topic: str) -> None:
    """H3: as the template helper of a well-known framework does."""
    first = hub.publish(topic, "1")
    hub.publish(topic, "2")
    assert payloads(hub.watch([("topic", topic), ("lastEventID", first), ("Last-Event-ID", first)])) == ["2"]


def test_a_resume_replays_what_follows_and_goes_on(hub: Hub, topic: str) -> None:
    """H4: history before live, nothing twice."""
    ids = [hub.publish(topic, str(number)) for number in range(10)]
    watch = hub.watch([("topic", topic)], Last_Event_ID=ids[4])
    live = hub.publish(topic, "live")
    assert [block.id for block in watch.events()] == [*ids[5:], live]


def test_a_replay_is_judged_by_the_present_token(keyed_hub: Hub, topic: str) -> None:
    """H4: rights that were lost since are lost for history too."""
    first = keyed_hub.publish(topic, "1")
    keyed_hub.publish(topic, "2", private="on")
    keyed_hub.publish(topic, "3")
    query = [("topic", topic)]
    allowed = keyed_hub.watch(query, Authorization=f"Bearer {token(subscribe=[topic])}", Last_Event_ID=first)
    refused = keyed_hub.watch(query, Authorization=f"Bearer {token(subscribe=[])}", Last_Event_ID=first)
    assert (payloads(allowed), payloads(refused)) == (["2", "3"], ["3"])


def test_earliest_replays_all_that_is_kept(hub: Hub, topic: str) -> None:
    """H5: from the first event on, for the matchers."""
    for number in range(5):
        hub.publish(topic, str(number))
    watch = hub.watch([("topic", topic), ("last_event_id", "earliest")])
    hub.publish(topic, "live")
    assert payloads(watch) == ["0", "1", "2", "3", "4", "live"]


def test_earliest_on_a_quiet_topic_waits_for_events(hub: Hub, topic: str) -> None:
    """H5: nothing to replay is no error."""
    watch = hub.watch([("topic", topic)], Last_Event_ID="earliest")
    hub.publish(topic, "live")
    assert payloads(watch) == ["live"]


def test_the_answer_names_the_cursor_that_was_found(hub: Hub, topic: str) -> None:
    """H6: under both names."""
    first = hub.publish(topic, "1")
    headers = hub.subscribe([("topic", topic)], Last_Event_ID=first).headers
    assert (headers["mercure-last-event-id"], headers["last-event-id"]) == (first, first)


def test_the_answer_to_an_unknown_cursor_is_earliest(hub: Hub, topic: str) -> None:
    """H6: asked and got differ, so the client knows of the loss."""
    hub.publish(topic, "1")
    assert (
        hub.subscribe([("topic", topic)], Last_Event_ID="urn:uuid:no-such-event").headers["mercure-last-event-id"]
        == "earliest"
    )


def test_an_unknown_cursor_gets_a_gap_and_all_that_is_kept(hub: Hub, topic: str) -> None:
    """H7: never silence, never nothing."""
    hub.publish(topic, "1")
    watch = hub.watch([("topic", topic)], Last_Event_ID="urn:uuid:no-such-event")
    hub.publish(topic, "2")
    gap, *events = watch.events()
    assert json.loads(gap.data or "")["reason"] == "unknown"
    assert [block.data for block in events] == ["1", "2"]


def test_an_unknown_cursor_on_an_empty_history_goes_live(new_hub: Callable[..., Hub], topic: str) -> None:
    """H7: the header says `earliest` and events arrive."""
    watch = new_hub().watch([("topic", topic)], Last_Event_ID="urn:uuid:no-such-event")
    assert watch.headers["mercure-last-event-id"] == "earliest"
    watch.hub.publish(topic, "live")
    assert payloads(watch) == ["live"]


def test_an_id_that_was_used_twice_means_its_first_event(hub: Hub, topic: str) -> None:
    """H8: the later twin is replayed too."""
    twin = f"urn:twin:{topic}"
    hub.publish(topic, "1", id=twin)
    hub.publish(topic, "2")
    hub.publish(topic, "3", id=twin)
    watch = hub.watch([("topic", topic)], Last_Event_ID=twin)
    assert payloads(watch) == ["2", "3"]
    assert watch.headers["mercure-last-event-id"] == twin


def test_the_id_of_an_event_elsewhere_is_a_cursor(hub: Hub, topic: str) -> None:
    """H9: the order is the hub's, not a topic's."""
    hub.publish(topic, "before")
    cursor = hub.publish(f"{topic}/elsewhere", "not selected")
    own = f"urn:own:{topic}"
    hub.publish(f"{topic}/elsewhere", "not selected", id=own)
    hub.publish(topic, "after")
    for value in (cursor, own):
        watch = hub.watch([("topic", topic)], Last_Event_ID=value)
        assert (watch.headers["last-event-id"], payloads(watch)) == (value, ["after"])


def test_the_first_block_says_when_to_come_back(hub: Hub, topic: str) -> None:
    """H10: a `retry:` of the hub's own, another one for each connection."""
    times = set()
    for _ in range(8):
        block = hub.subscribe([("topic", topic)]).next_block()
        assert block is not None
        times.add(int(block.get("retry") or ""))
    assert min(times) > 0
    assert len(times) > 1


def test_a_browser_can_see_a_loss_in_the_stream(hub: Hub, topic: str) -> None:
    """H11: `hello` says whether the resume is complete, a gap says why not."""
    cursor = hub.publish(topic, "1")
    complete = hub.watch([("topic", topic)], Last_Event_ID=cursor)
    facts = complete.hello()
    assert (facts["complete"], facts["cursor"], gap_of(complete.events())) == (True, cursor, None)
    broken = hub.watch([("topic", topic)], Last_Event_ID="urn:uuid:no-such-event")
    facts = broken.hello()
    assert (facts["complete"], facts["cursor"]) == (False, None)
    assert gap_of(broken.events()) is not None
