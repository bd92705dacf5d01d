"""What a subscription may ask for: rows S1 to S11."""

from __future__ import annotations

import http.client

import pytest

from tests.mercure.hub import PATH, Hub, token

CONTROL_CHARACTERS = {
    "NUL": "\x00", "TAB": "\t", "LF": "\n", "ESC": "\x1b", "DEL": "\x7f", "C1": "\x85",
    "zero width": "\u200b", "bidi": "\u202e", "BOM": "\ufeff",
}  # fmt: skip


@pytest.mark.parametrize("name", ["match", "match_exact"])
def test_exact_matchers_compare_byte_for_byte(hub: Hub, topic: str, name: str) -> None:
    """S1: no normalisation, no template, no prefix."""
    watch = hub.watch([(name, topic)])
    for other in (topic.upper(), f"{topic}/", f"{topic}?", topic.replace("example.com", "example.com:443"), topic[:-1]):
        hub.publish(other, other)
    hub.publish(topic, "mine")
    assert watch.data() == ["mine"]


@pytest.mark.parametrize("name", ["match", "match_exact"])
def test_a_template_in_an_exact_matcher_is_only_a_string(hub: Hub, topic: str, name: str) -> None:
    """S1: braces mean nothing to an exact matcher."""
    watch = hub.watch([(name, f"{topic}/{{id}}")])
    hub.publish(f"{topic}/1", "no")
    hub.publish(f"{topic}/{{id}}", "yes")
    assert watch.data() == ["yes"]


def test_matchers_repeat_and_mix(hub: Hub, topic: str) -> None:
    """S1: all of them together are one union."""
    watch = hub.watch(
        [("match", f"{topic}/a"), ("match", f"{topic}/b"), ("match_exact", f"{topic}/c"), ("match_exact", f"{topic}/d")]
    )
    for name in "abcde":
        hub.publish(f"{topic}/{name}", name)
    assert watch.data() == ["a", "b", "c", "d"]


def test_parameter_names_are_compared_after_percent_decoding(hub: Hub, topic: str) -> None:
    """S1: `m%61tch` is `match`."""
    watch = hub.watch(f"m%61tch={topic}")
    hub.publish(topic, "yes")
    assert watch.data() == ["yes"]


@pytest.mark.parametrize(
    "name",
    ["Match", "MATCH", "matchfoo", "match_regexp", "MATCH_EXACT", "match-exact", "match[]", "mat%43h", "matche%CC%81"],
)
def test_unknown_matchers_are_refused(hub: Hub, topic: str, name: str) -> None:
    """S2: a reader must never be served without a filter that it asked for."""
    answer = hub.get(f"topic={topic}&{name}=x")
    assert (answer.status, answer.error["code"]) == (400, "bad_request")


@pytest.mark.parametrize("name", ["mismatch", "rematch", "Topic", "topics", "filter", "_match", "x"])
def test_other_unknown_parameters_are_ignored(hub: Hub, topic: str, name: str) -> None:
    """S2: only names that begin with `match` are reserved."""
    watch = hub.watch([("topic", topic), (name, "*")])
    hub.publish(f"{topic}/other", "no")
    assert watch.data() == []


@pytest.mark.parametrize("name", ["topic", "match", "match_exact"])
def test_a_star_selects_everything(hub: Hub, topic: str, name: str) -> None:
    """S3: whatever the kind of matcher."""
    watch = hub.watch([(name, "*")])
    hub.publish(topic, "any")
    assert "any" in watch.data()


def test_a_request_without_a_matcher_is_refused(hub: Hub) -> None:
    """S4: there is no subscription to nothing."""
    for query in ("", "last_event_id=earliest", "type=message", "TOPIC=x"):
        answer = hub.get(query)
        assert (answer.status, answer.error["code"]) == (400, "bad_request"), query


@pytest.mark.parametrize("name", ["topic", "match", "match_exact"])
@pytest.mark.parametrize("character", CONTROL_CHARACTERS.values(), ids=CONTROL_CHARACTERS.keys())
def test_control_and_format_characters_in_a_matcher_are_refused(
    hub: Hub, topic: str, name: str, character: str
) -> None:
    """S5: C0, DEL, C1 and category Cf."""
    assert hub.get([(name, f"{topic}{character}x")]).status == 400


@pytest.mark.parametrize("value", ["%FF", "%C3", "%ED%A0%80", "%C0%AF"])
def test_a_matcher_that_is_no_utf_8_is_refused(hub: Hub, value: str) -> None:
    """S5: invalid, cut, surrogate and overlong sequences."""
    assert hub.get(f"topic=a{value}").status == 400
    assert hub.get(f"match=a{value}").status == 400


def test_letters_of_every_direction_are_fine(hub: Hub, topic: str) -> None:
    """S5: right-to-left letters are no format characters."""
    name = f"{topic}/שלום/日本/é/😀"
    watch = hub.watch([("topic", name)])
    hub.publish(name, "yes")
    assert watch.data() == ["yes"]


def test_a_refusal_does_not_tell_of_the_inside(hub: Hub) -> None:
    """S5: no addresses, no library names, no traceback in the reason."""
    text = hub.get("match=%FF").text.lower()
    assert not any(word in text for word in ("0x", "traceback", "codec", "tornado", ".py", "python"))


def test_the_query_is_read_as_a_form(hub: Hub, topic: str) -> None:
    """S6: a plus is a space, a semicolon is data, a name alone has an empty value."""
    watch = hub.watch(f"topic={topic}/a+b;c&&flag&=x")
    hub.publish(f"{topic}/a b;c", "form")
    hub.publish(f"{topic}/a+b;c", "no")
    assert watch.data() == ["form"]


def test_a_percent_sign_without_digits_is_data(hub: Hub, topic: str) -> None:
    """S6: as the URL standard has it."""
    watch = hub.watch(f"match={topic}/100%&match={topic}/%zz")
    hub.publish(f"{topic}/100%", "1")
    hub.publish(f"{topic}/%zz", "2")
    assert watch.data() == ["1", "2"]


def test_a_hundred_matchers_are_served_and_one_more_is_refused(hub: Hub, topic: str) -> None:
    """S7: the limit counts all kinds together."""
    half = [("topic", f"{topic}/{number}") for number in range(50)]
    other = [("match", f"{topic}/{number}") for number in range(50, 100)]
    assert hub.subscribe(half + other).status == 200
    assert hub.get([*half, *other, ("match_exact", topic)]).status == 400


def test_a_matcher_of_4096_bytes_is_served_and_a_longer_one_is_refused(hub: Hub, topic: str) -> None:
    """S7: the limit is in bytes of UTF-8, not in characters."""
    longest = topic + "/" + "x" * (4095 - len(topic))
    watch = hub.watch([("topic", longest)])
    hub.publish(longest, "long")
    assert watch.data() == ["long"]
    assert hub.get([("topic", longest + "x")]).status == 400
    assert hub.get([("match", "é" * 2049)]).status == 400


def test_an_event_that_several_matchers_select_comes_once(hub: Hub, topic: str) -> None:
    """S9: equal and overlapping matchers are one subscription."""
    watch = hub.watch(
        [
            ("topic", topic),
            ("topic", topic),
            ("match", topic),
            ("match_exact", topic),
            ("topic", topic.rsplit("/", 1)[0] + "/{id}"),
        ]
    )
    hub.publish(topic, "once")
    assert watch.data() == ["once"]


def test_topic_and_match_unite(hub: Hub, topic: str) -> None:
    """S10, 1.11: both drafts in one request."""
    watch = hub.watch([("topic", f"{topic}/{{id}}"), ("match", topic)])
    hub.publish(topic, "exact")
    hub.publish(f"{topic}/7", "template")
    hub.publish(f"{topic}/7/8", "no")
    assert watch.data() == ["exact", "template"]


def test_a_bad_token_is_refused_where_none_is_needed(public_hub: Hub) -> None:
    """S11: anonymous reading does not forgive a bad token."""
    bad = token(subscribe=["*"], secret="another secret of at least thirty-two bytes")
    assert public_hub.get("topic=a", Authorization=f"Bearer {bad}").status == 401


def test_without_a_token_an_anonymous_reader_gets_public_events(public_hub: Hub, topic: str) -> None:
    """S11: and nothing private."""
    watch = public_hub.watch([("topic", topic)])
    public_hub.publish(topic, "secret", private="on")
    public_hub.publish(topic, "open")
    assert watch.data() == ["open"]


def test_without_a_token_nothing_is_read_where_anonymous_is_off(keyed_hub: Hub) -> None:
    """S11: 401."""
    assert keyed_hub.get("topic=a").status == 401


def test_both_ways_to_the_endpoint_judge_a_request_alike(hub: Hub, topic: str) -> None:
    """S1, S2, S4, S5, S6, S7: the first request of a connection and a later one on it have one answer."""
    queries = [
        "",
        "match=a%FF",
        "Match=a",
        "topic=%00",
        f"topic={topic}&x;y",
        "&".join(f"match={n}" for n in range(101)),
        "topic=" + "x" * 4097,
    ]
    for query in queries:
        first = hub.subscribe(query)
        assert _later_status(hub, query) == first.status, query


def _later_status(hub: Hub, query: str) -> int:
    """The status of a streaming GET that comes second on a kept-alive connection."""
    connection = http.client.HTTPConnection("127.0.0.1", hub.node.port, timeout=5)
    connection.request("GET", "/health")
    connection.getresponse().read()
    connection.request("GET", f"{PATH}?{query}", headers={"Accept": "text/event-stream"})
    with connection.getresponse() as answer:
        connection.close()
        return answer.status
