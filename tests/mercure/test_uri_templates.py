"""URI templates as selectors: row 1.12. `{x}` never spans a slash, `{+x}` does, the whole topic must match, a bad
template is a plain text.
"""

from __future__ import annotations

import time

import pytest

from tests.mercure.conftest import PUBLISHER
from tests.mercure.hub import Hub, token

# selector, topics that it selects, topics that it does not
TEMPLATES: list[tuple[str, list[str], list[str]]] = [
    ("{b}/{{id}}", ["1", "a-b._~9", "a,b", "%20", ""], ["1/", "1/2", "a b", "a?b", "%2", "%zz", "é", "a:b", "a@b"]),
    ("{b}/{{id}}/x", ["1/x", "/x"], ["1/2/x", "1/x/", "1/X", "x"]),
    ("{b}/{{a}}-{{c}}", ["1-2", "-", "1-2-3"], ["12", "1-2/3"]),
    ("{b}/{{a,c}}", ["1,2", "1"], ["1/2"]),
    ("{b}/{{+rest}}", ["", "1", "1/2/3", "1?x=y#z", "a:b@c", "%20"], ["a b", "é", '"', "%zz"]),
    ("{b}/a{{#frag}}", ["a", "a#1", "a#1/2"], ["a1", "b#1"]),
    ("{b}/a{{?q}}", ["a", "a?q=1", "a?q="], ["a/1", "b?q=1", "a?q=1/2"]),
    ("{b}/a?x=1{{&q}}", ["a?x=1", "a?x=1&q=2"], ["a&q=2", "a?x=2&q=2"]),
    ("{b}/a{{;q}}", ["a", "a;q", "a;q=1"], ["a,q", "b"]),
    ("{b}/a{{.ext}}", ["a", "a.json"], ["a/json", "b.json"]),
    ("{b}/a{{/seg}}", ["a", "a/1"], ["b/1", "a?1"]),
    ("{b}/{{id}}", ["{id}"], []),
    ("{b}/{{id", ["{id"], ["1", "id"]),
    ("{b}/{{}}", ["{}"], ["1"]),
    ("{b}/{{!x}}", ["{!x}"], ["1"]),
    ("{b}/a}}b", ["a}b"], ["ab"]),
    ("{b}/.", ["."], ["1"]),
    ("{b}/(a|b)", ["(a|b)"], ["a", "b"]),
    ("{b}/[a-z]+{{id}}", ["[a-z]+1"], ["a1", "abc"]),
    ("{b}/a.b{{id}}", ["a.b1"], ["aXb1"]),
]


@pytest.mark.parametrize(("selector", "selected", "others"), TEMPLATES, ids=[row[0] for row in TEMPLATES])
def test_a_template_selects_topics(hub: Hub, topic: str, selector: str, selected: list[str], others: list[str]) -> None:
    """1.12: on a live stream."""
    watch = hub.watch([("topic", selector.format(b=topic))])
    for tail in [*others, *selected]:
        hub.publish(f"{topic}/{tail}", tail)
    assert watch.data() == selected


@pytest.mark.parametrize(("selector", "selected", "others"), TEMPLATES[:5], ids=[row[0] for row in TEMPLATES[:5]])
def test_a_template_selects_history_as_it_selects_live(
    hub: Hub, topic: str, selector: str, selected: list[str], others: list[str]
) -> None:
    """1.12: one matcher for both."""
    for tail in [*others, *selected]:
        hub.publish(f"{topic}/{tail}", tail)
    assert hub.watch([("topic", selector.format(b=topic)), ("last_event_id", "earliest")]).data() == selected


@pytest.mark.parametrize(("selector", "selected", "others"), TEMPLATES, ids=[row[0] for row in TEMPLATES])
def test_a_template_grants_topics(
    keyed_hub: Hub, topic: str, selector: str, selected: list[str], others: list[str]
) -> None:
    """1.12: in a claim as in the query, for reading and for publishing."""
    template = selector.format(b=topic)
    watch = keyed_hub.watch([("topic", "*")], Authorization=f"Bearer {token(subscribe=[template])}")
    for tail in [*others, *selected]:
        keyed_hub.publish(f"{topic}/{tail}", tail, private="on")
    assert [block.data for block in watch.events() if block.data != "mark"] == selected
    writer = Hub(keyed_hub.node, token(publish=[template]))
    assert [writer.offer([("topic", f"{topic}/{tail}")]).status for tail in [*selected, *others]] == [200] * len(
        selected
    ) + [403] * len(others)


@pytest.mark.parametrize(
    "selector", ["{+a}{+b}{+c}{+d}{+e}{+f}", "{a}{a}{a}{a}{a}{a}{a}{a}", "{a,b,c,d}" * 20, "{+a}x" * 20]
)
def test_a_costly_template_costs_nobody_time(hub: Hub, topic: str, selector: str) -> None:
    """1.12: matching takes linear time, for a topic that almost matches too."""
    watch = hub.watch([("topic", selector + "!"), ("topic", topic)])
    begin = time.monotonic()
    for tail in ("", "/", "é", "!"):
        hub.publish("x" * 4000 + tail, tail)
    hub.publish(topic, "on time")
    assert time.monotonic() - begin < 5
    assert watch.data() == ["!", "on time"]


def test_a_selector_beside_another_does_not_change_it(keyed_hub: Hub, topic: str) -> None:
    """1.12: a union is no product."""
    both = keyed_hub.watch(
        [("topic", f"{topic}/{{a}}"), ("topic", f"{topic}/{{a}}/{{b}}")], Authorization=f"Bearer {PUBLISHER}"
    )
    one = keyed_hub.watch([("topic", f"{topic}/{{a}}")], Authorization=f"Bearer {PUBLISHER}")
    keyed_hub.publish(f"{topic}/1/2", "two")
    keyed_hub.publish(f"{topic}/1", "one")
    assert (both.data(), one.data()) == (["two", "one"], ["one"])
