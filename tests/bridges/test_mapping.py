"""Mappings: what a message becomes, and what becomes of one that does not fit."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridges.mapping import Mapping, Message, Publication, Unmappable
from config.templates import MAX_CHARACTERS, MAX_PLACES, MAX_STEPS, Place, parse_template
from server.event import Event

BODY = {
    "companyId": "a",
    "value": 0.85,
    "big": 12345678901234567890,
    "yes": True,
    "nothing": None,
    "list": [{"id": 7}, "x"],
    "company": {"id": "b", "name": 'O"Neil {x} \\ ü'},
}


def message(body: object = BODY, source: str = "metrics.calculated", **fields: Any) -> Message:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Message(source, raw, **fields)


def one(mapping: Mapping, of: Message) -> Publication:
    [publication] = mapping.publications(of)
    return publication


def mapping(**fields: Any) -> Mapping:
    return Mapping("metrics.*", **({"channel": "companies", "topics": ["t"]} | fields))


def text(template: str, of: Message) -> str:
    return one(mapping(topics=[template]), of).event.topics[0]


def test_c2_a_message_becomes_an_event_of_the_right_company() -> None:
    """C2: a metric of NATS goes to its company's topic under the type that dashboards listen to, as it came."""
    made = one(mapping(topics=["companies/{json.companyId}"], type="metric_updated", private=True), message())
    assert made.channel == "companies"
    assert made.event.topics == ("companies/a",)
    assert made.event.type == "metric_updated"
    assert made.event.private is True
    assert json.loads(made.event.data) == BODY
    assert made.key is None


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        ("{json.companyId}", "a"),
        ("{json.value}", "0.85"),
        ("{json.big}", "12345678901234567890"),
        ("{json.yes}", "true"),
        ("{json.list.0.id}", "7"),
        ("{json.list.1}", "x"),
        ("{json.company.id}/{json.companyId}", "b/a"),
        ("{subject}", "metrics.calculated"),
        ("{subject[1]}", "calculated"),
        ("{attributes.Trace-Id}", "t.1"),
        ("{attributes.with.dots}", "d"),
        ("{id}", "m-1"),
        ("{{{json.companyId}}}", "{a}"),
        ("{ json.companyId }", "a"),
        ("plain", "plain"),
    ],
)
def test_a_place_names_a_part_of_the_message(template: str, filled: str) -> None:
    of = message(attributes={"Trace-Id": "t.1", "with.dots": "d"}, id="m-1")
    assert text(template, of) == filled


def test_the_parts_of_a_redis_channel_are_between_colons() -> None:
    """J4: `job:123:updates` is of job 123."""
    assert text("jobs/{subject[1]}", message(source="job:123:updates", separator=":")) == "jobs/123"


@pytest.mark.parametrize(
    ("template", "field", "reason"),
    [
        ("{json.nobody}", "json.nobody", "is missing"),
        ("{json.companyId.deeper}", "json.companyId.deeper", "is missing"),
        ("{json.list.9}", "json.list.9", "is missing"),
        ("{json.list.-1}", "json.list.-1", "is missing"),
        ("{json.list.²}", "json.list.²", "is missing"),
        ("{json.nothing}", "json.nothing", "is not a text or a number"),
        ("{json.company}", "json.company", "is not a text or a number"),
        ("{subject[2]}", "subject[2]", "is missing"),
        ("{attributes.none}", "attributes.none", "is missing"),
        ("{id}", "id", "is missing"),
    ],
)
def test_what_is_missing_is_named(template: str, field: str, reason: str) -> None:
    with pytest.raises(Unmappable) as caught:
        text(template, message())
    assert (caught.value.field, caught.value.reason) == (field, reason)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000, b'{"a": 1'])
def test_a_body_that_is_no_json_does_not_fit_a_template_that_wants_a_field(body: bytes) -> None:
    with pytest.raises(Unmappable) as caught:
        text("{json.a}", message(body))
    assert caught.value.field == "body"


@pytest.mark.parametrize(
    ("fields", "body", "field"),
    [
        ({"topics": ["{json.t}"]}, {"t": "a\nb"}, "topic"),
        ({"topics": ["{json.t}"]}, {"t": ""}, "topic"),
        ({"topics": ["{json.t}"]}, {"t": "*"}, "topic"),
        ({"topics": ["{json.t}"]}, {"t": "x" * 5_000}, "topic"),
        ({"topics": ["{json.t}"]}, {"t": "\ud800"}, "topic"),
        ({"type": "{json.t}"}, {"t": "gap"}, "type"),
        ({"type": "{json.t}"}, {"t": "a\ndata: b"}, "type"),
        ({"channel": "{json.t}"}, {"t": "Not A Name"}, "channel"),
        ({"data": "{json.t}"}, {"t": "\ud800"}, "data"),
        ({}, b"\xff\xfe", "body"),
    ],
)
def test_what_cannot_be_an_event_does_not_fit(fields: dict[str, Any], body: object, field: str) -> None:
    with pytest.raises(Unmappable) as caught:
        mapping(**fields).publications(message(body))
    assert caught.value.field == field


def test_nothing_of_a_message_is_in_what_is_said_of_it() -> None:
    for body in ({"t": "secret\n"}, {"t": {"secret": 1}}, b"secret{"):
        with pytest.raises(Unmappable) as caught:
            text("{json.t}", message(body))
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("form", "data"),
    [
        ("{json.value}", "0.85"),
        ("{json.company}", json.dumps(BODY["company"], ensure_ascii=False, separators=(",", ":"))),
        ("at {subject[1]}: {json.value}", "at calculated: 0.85"),
        ("{body}", json.dumps(BODY)),
        ({"id": "{json.companyId}", "v": "{json.value}"}, '{"id":"a","v":0.85}'),
        ({"all": ["{json.list}", "{json.nothing}", 1, None, True]}, '{"all":[[{"id":7},"x"],null,1,null,true]}'),
        ({"{{": "{{x}}"}, '{"{{":"{x}"}'),
    ],
)
def test_data_is_text_or_json_of_a_form(form: object, data: str) -> None:
    assert one(mapping(data=form), message()).event.data == data


def test_no_text_of_a_message_breaks_out_of_the_json_that_it_stands_in() -> None:
    made = one(mapping(data={"name": "{json.company.name}", "and": "<{json.company.name}>"}), message())
    name = 'O"Neil {x} \\ ü'
    assert json.loads(made.event.data) == {"name": name, "and": f"<{name}>"}


@given(st.text(), st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner)))
def test_json_of_a_form_is_json_whatever_comes(words: str, value: object) -> None:
    of = message({"words": words, "value": value})
    made = mapping(data={"words": "{json.words}", "in": "-{json.words}-", "value": "{json.value}"})
    assert json.loads(one(made, of).event.data) == {"words": words, "in": f"-{words}-", "value": value}


TEMPLATES = [
    "{json.a}",
    "{json.a.0.b}",
    "{subject}",
    "{subject[0]}",
    "{subject[7]}",
    "{attributes.a}",
    "{id}",
    "{body}",
]
BODIES = st.binary(max_size=200) | st.dictionaries(
    st.sampled_from("ab"),
    st.recursive(
        st.none() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from("ab"), inner),
    ),
    max_size=3,
).map(lambda value: json.dumps(value).encode())


@given(
    body=BODIES,
    source=st.text(max_size=50),
    attributes=st.dictionaries(st.sampled_from("ab"), st.text(max_size=20)),
    own_id=st.none() | st.text(max_size=300),
    templates=st.lists(st.sampled_from(TEMPLATES), min_size=6, max_size=6),
)
def test_a_message_becomes_valid_events_or_does_not_fit_whatever_it_is(
    body: bytes, source: str, attributes: dict[str, str], own_id: str | None, templates: list[str]
) -> None:
    of = Message(source, body, attributes, own_id)
    topic, kind, data, key, channel, inner = templates
    made = Mapping(
        "*", channel=channel, topics=[topic, f"x{topic}"], type=kind, data={"d": data, "i": [inner]}, key=key
    )
    whole = Mapping("*", channel="main", topics=["t"], location=("{json.a}", "{json.b}"))
    for candidate in (made, whole):
        try:
            found = candidate.publications(of)
        except Unmappable:
            continue
        for publication in found:
            publication.event.data.encode()
            assert publication.key is None or len(publication.key) <= 128


@given(st.text(alphabet="{}[]. abjsonubectidry0123456789é"))
def test_a_text_is_a_template_or_is_refused(candidate: str) -> None:
    try:
        pieces = parse_template(candidate)
    except ValueError:
        return
    shown = [
        f"{{{one.text}}}" if isinstance(one, Place) else one.replace("{", "{{").replace("}", "}}") for one in pieces
    ]
    assert parse_template("".join(shown)) == pieces


@pytest.mark.parametrize(
    "template",
    [
        "{",
        "}",
        "{}",
        "a}b",
        "{json}",
        "{json.}",
        "{json.a..b}",
        "{jsn.a}",
        "{attributes}",
        "{attributes.}",
        "{subject[]}",
        "{subject[-1]}",
        "{subject[100]}",
        "{subject[x]}",
        "{message.__class__}",
        "{json.a!r}{",
        "{{json.a}",
        "x" * (MAX_CHARACTERS + 1),
        "{id}" * (MAX_PLACES + 1),
        "{json" + ".a" * (MAX_STEPS + 1) + "}",
    ],
)
def test_a_slip_in_a_template_is_an_error_when_it_is_read(template: str) -> None:
    with pytest.raises(ValueError, match=r"template|brace|no part|steps"):
        parse_template(template)


def test_a_place_is_a_name_and_is_never_run() -> None:
    assert parse_template("{json.__class__.a!r}") == (Place("json", ("__class__", "a!r"), "json.__class__.a!r"),)
    with pytest.raises(Unmappable):
        text("{json.__class__}", message())


# --- location


def test_a_location_is_two_numbers() -> None:
    made = mapping(location=("{json.at.lat}", "{json.at.lon}"))
    event = one(made, message({"at": {"lat": 52.52, "lon": "13.4"}})).event
    assert event.location == (52.52, 13.4)
    for wrong in ({"lat": "north", "lon": 1}, {"lat": 91, "lon": 1}, {"lat": float("nan"), "lon": 1}, {"lat": 1}):
        with pytest.raises(Unmappable):
            made.publications(message({"at": wrong}))


# --- keys


@pytest.mark.parametrize(
    ("template", "own_id", "key"),
    [
        (None, None, None),
        (None, "m-1", "m-1"),
        ("{json.companyId}-{id}", "m-1", "a-m-1"),
        ("{json.companyId}", None, "a"),
    ],
)
def test_the_key_is_the_templates_or_the_messages_own(
    template: str | None, own_id: str | None, key: str | None
) -> None:
    assert one(mapping(key=template), message(id=own_id)).key == key


def test_a_long_key_is_shortened_and_stays_one_of_its_own() -> None:
    keys = {one(mapping(), message(id="x" * 1_000 + end)).key for end in "ab"}
    assert len(keys) == 2
    assert all(key is not None and len(key) <= 128 for key in keys)


def several(of: Message) -> list[Publication]:
    return [Publication("main", Event((f"t/{number}",), str(number))) for number in range(3)]


def test_what_a_function_makes_of_one_message_has_a_key_each() -> None:
    made = Mapping("*", function=several).publications(message(id="m"))
    assert [publication.key for publication in made] == ["m", "m#1", "m#2"]
    assert [publication.event.data for publication in made] == ["0", "1", "2"]


# --- functions


def broken(of: Message) -> list[Publication]:
    raise KeyError(of.json()["companyId"])


def refusing(of: Message) -> list[Publication]:
    raise Unmappable("value", "is too small")


def invalid(of: Message) -> list[Publication]:
    return [Publication("main", Event(("a\n",), ""))]


def wrong(of: Message) -> Any:
    return ["an event"]


@pytest.mark.parametrize(
    ("function", "field", "reason"),
    [
        (broken, "function", "raised KeyError"),
        (refusing, "value", "is too small"),
        (invalid, "topic", "must not hold control or format characters"),
        (wrong, "function", "returned something else than publications"),
        (lambda of: None, "function", "raised TypeError"),
    ],
)
def test_whatever_a_function_does_the_message_just_does_not_fit(function: Any, field: str, reason: str) -> None:
    with pytest.raises(Unmappable) as caught:
        Mapping("*", function=function).publications(message())
    assert (caught.value.field, caught.value.reason) == (field, reason)


def test_a_function_is_named_by_package_and_name() -> None:
    made = Mapping("*", function="tests.bridges.test_mapping:several")
    assert len(made.publications(message())) == 3


@pytest.mark.parametrize("name", ["", "a", "a:", ":b", "no.such.module:f", "json:no_such", "json:decoder.x", "os:sep"])
def test_a_function_that_is_not_there_is_an_error_at_once(name: str) -> None:
    with pytest.raises(ValueError, match=r"package\.module:name|cannot be had|not a function"):
        Mapping("*", function=name)
