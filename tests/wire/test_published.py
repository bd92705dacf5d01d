"""The rules of the wire through a whole server: what publishers may send, and what arrives for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.endings import CONTROL_EVENTS
from server.event import is_safe
from tests.harness.process import Node
from tests.harness.stream import Stream
from tests.wire.parser import StrictParser

HUB = "/.well-known/mercure"
CHANNEL = "/channels/published/events"
FORM = "application/x-www-form-urlencoded"
JSON = "application/json"


def post_form(node: Node, **fields: str | bytes) -> tuple[int, bytes]:
    status, _, body = node.request("POST", HUB, urlencode({"topic": "published"} | fields), Content_Type=FORM)
    return status, body


def post_json(node: Node, **fields: Any) -> tuple[int, bytes]:
    status, _, body = node.request("POST", CHANNEL, json.dumps({"topic": "published"} | fields), Content_Type=JSON)
    return status, body


def assert_refused(answer: tuple[int, bytes], status: int, field: str) -> None:
    assert answer[0] == status, answer
    assert json.loads(answer[1])["field"] == field


class Reading:
    """One stream of each endpoint, read strictly; `next_of` gives the next published event of one."""

    def __init__(self, node: Node) -> None:
        self.streams = {
            path: Stream(node.port, path, seconds=20)
            for path in (f"{HUB}?topic=published", f"{CHANNEL}?topic=published")
        }
        self.parsers = {path: StrictParser() for path in self.streams}

    def next_of(self, path: str) -> tuple[str, str, str]:
        """(type, data, id) of the one event that comes next on an endpoint."""
        [key] = [known for known in self.streams if known.startswith(path)]
        while True:
            events = self.parsers[key].feed(self.streams[key].next_piece())
            events = [event for event in events if event.type != "hello"]
            if events:
                [event] = events
                return event.type, event.data, event.last_event_id


@pytest.fixture
def reading(shared_node: Node) -> Iterator[Reading]:
    found = Reading(shared_node)
    yield found
    for stream in found.streams.values():
        stream.close()


@pytest.mark.parametrize("data", [b"\xff", b"a\xc3", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80"])
def test_data_that_is_not_utf_8_is_refused(shared_node: Node, data: bytes) -> None:
    """E01: percent-encoded, raw in a form, and raw in JSON."""
    assert_refused(post_form(shared_node, data=data), 400, "data")
    assert shared_node.request("POST", HUB, b"topic=published&data=" + data, Content_Type=FORM)[0] == 400
    assert shared_node.request("POST", CHANNEL, b'{"data": "' + data + b'"}', Content_Type=JSON)[0] == 400


@pytest.mark.parametrize("text", ["\\ud800", "\\udfff", "a\\ud83d", "\\udc00\\ud800"])
@pytest.mark.parametrize("field", ["data", "type", "id", "topic"])
def test_a_lone_surrogate_in_json_is_refused(shared_node: Node, field: str, text: str) -> None:
    """E01: JSON can write what UTF-8 cannot."""
    status, _, body = shared_node.request("POST", CHANNEL, f'{{"{field}": "{text}"}}', Content_Type=JSON)
    assert status == 400
    assert json.loads(body)["code"] == "bad_request"


def test_a_surrogate_inside_a_json_value_arrives_as_text_or_not_at_all(shared_node: Node, reading: Reading) -> None:
    """E01: data that is no string goes out as JSON, where an escape is legal."""
    status, _, body = shared_node.request(
        "POST", CHANNEL, '{"topic": "published", "data": {"a": "\\ud800"}}', Content_Type=JSON
    )
    if status == 200:
        assert json.loads(reading.next_of(CHANNEL)[1]) == {"a": "\ud800"}
    else:
        assert_refused((status, body), 400, "data")


@pytest.mark.parametrize(
    "data",
    [
        "",
        " ",
        " a",
        "\ufeffa",
        "a\n",
        "\n\n",
        "a\u2028b\u0085c\x0b\x0c\x1cd",
        "a\0b",
        ": a\nid: 1\ndata: b",
        "é☃\U0001f680",
        "x" * 70_000,
    ],
)
def test_data_arrives_unchanged(shared_node: Node, reading: Reading, data: str) -> None:
    """E02, E04, E05, E07, E16: by form and by JSON."""
    status, body = post_form(shared_node, data=data)
    assert status == 200
    assert reading.next_of(HUB) == ("message", data, body.decode())
    status, body = post_json(shared_node, data=data)
    assert status == 200
    assert reading.next_of(CHANNEL) == ("message", data, json.loads(body)["ids"][0])


@pytest.mark.parametrize("data", ["a\rb", "a\r\nb", "a\n\rb", "a\r\rb", "a\r", "\r\nid: 1\r\n\r\ndata: b"])
def test_line_ends_arrive_as_lf(shared_node: Node, reading: Reading, data: str) -> None:
    """E03: none of them can forge a field or a block."""
    assert post_form(shared_node, data=data)[0] == post_json(shared_node, data=data)[0] == 200
    expected = data.replace("\r\n", "\n").replace("\r", "\n")
    assert reading.next_of(HUB)[1] == reading.next_of(CHANNEL)[1] == expected


def test_an_event_without_data_arrives(shared_node: Node, reading: Reading) -> None:
    """E06: as an empty string."""
    assert post_form(shared_node)[0] == post_json(shared_node)[0] == 200
    assert reading.next_of(HUB)[1] == reading.next_of(CHANNEL)[1] == ""


def test_an_empty_type_is_left_out(shared_node: Node, reading: Reading) -> None:
    """E08: or refused; never an `event:` line without a value."""
    for answer, path in ((post_form(shared_node, type=""), HUB), (post_json(shared_node, type=""), CHANNEL)):
        if answer[0] == 200:
            assert reading.next_of(path)[0] == "message"
        else:
            assert_refused(answer, 400, "type")


FORGERIES = ["a\nb", "a\rb", "a\r\ndata: x", "a\0b", "\n", "a\x7f", "a\x85", "a\u200b", "a\ufeff", "\u2066a"]


@pytest.mark.parametrize("text", FORGERIES)
@pytest.mark.parametrize("field", ["type", "id", "topic"])
def test_a_field_that_could_forge_another_is_refused(shared_node: Node, field: str, text: str) -> None:
    """E08, E09: a line end, NUL, control or format character in a type, an id or a topic."""
    assert_refused(post_form(shared_node, **{field: text}), 400, field)
    assert_refused(post_json(shared_node, **{field: text}), 400, field)


@pytest.mark.parametrize("field", ["type", "id"])
def test_a_field_that_is_not_utf_8_is_refused(shared_node: Node, field: str) -> None:
    """E09."""
    assert_refused(post_form(shared_node, **{field: b"a\xff"}), 400, field)


@pytest.mark.parametrize(
    "name", ["open", "error", "hello", "gap", "heartbeat", "draining", "max_age", "auth_expired", "finished"]
)
def test_a_reserved_type_is_refused(shared_node: Node, name: str) -> None:
    """E08."""
    assert_refused(post_form(shared_node, type=name), 400, "type")
    assert_refused(post_json(shared_node, type=name), 400, "type")


def test_mercure_is_reserved_on_channel_main_alone(shared_node: Node, reading: Reading) -> None:
    """E08: there it announces subscriptions."""
    assert_refused(post_form(shared_node, type="mercure"), 400, "type")
    assert post_json(shared_node, type="mercure")[0] == 200
    assert reading.next_of(CHANNEL)[0] == "mercure"


@pytest.mark.parametrize("event_id", ["#a", "earliest"])
def test_an_id_that_means_something_else_is_refused(shared_node: Node, event_id: str) -> None:
    """E10."""
    assert_refused(post_form(shared_node, id=event_id), 400, "id")
    assert_refused(post_json(shared_node, id=event_id), 400, "id")


def test_an_id_of_the_servers_own_form_is_refused(shared_node: Node) -> None:
    """E10: it could name a place in the log that is not its own."""
    status, event_id = post_form(shared_node, data="a")
    assert status == 200
    assert_refused(post_form(shared_node, id=event_id), 400, "id")


def test_an_empty_id_never_resets_a_cursor(shared_node: Node, reading: Reading) -> None:
    """E10: it counts as none, or is refused."""
    for answer, path in ((post_form(shared_node, id=""), HUB), (post_json(shared_node, id=""), CHANNEL)):
        if answer[0] == 200:
            assert len(reading.next_of(path)[2]) == 20
        else:
            assert_refused(answer, 400, "id")


@pytest.mark.parametrize("event_id", ["a b", "ünï", "x" * 256, "urn:uuid:1", "a:b{c}"])
def test_a_publishers_own_id_arrives_unchanged(shared_node: Node, reading: Reading, event_id: str) -> None:
    """E09, E10."""
    assert post_form(shared_node, id=event_id) == (200, event_id.encode())
    assert reading.next_of(HUB)[2] == event_id


@pytest.mark.parametrize("retry", ["-1", "+5", "1.5", "1e3", " 5", "5 ", "5s", "\u0661", "\uff15", "12345678", "0x10"])
def test_a_retry_that_is_not_seven_ascii_digits_is_refused(shared_node: Node, retry: str) -> None:
    """E13."""
    assert_refused(post_form(shared_node, retry=retry), 400, "retry")


@pytest.mark.parametrize("retry", [-1, 1.5, 10_000_000, True, "5", [5], 1e3])
def test_a_retry_that_is_no_integer_is_refused(shared_node: Node, retry: object) -> None:
    """E13."""
    assert_refused(post_json(shared_node, retry=retry), 400, "retry")


def test_a_retry_arrives(shared_node: Node, reading: Reading) -> None:
    """E13."""
    assert post_form(shared_node, retry="1234")[0] == post_json(shared_node, retry=1234)[0] == 200
    reading.next_of(HUB), reading.next_of(CHANNEL)
    assert {parser.retry_ms for parser in reading.parsers.values()} == {1234}


@pytest.mark.parametrize("line_end", ["\n", "\r"])
def test_the_limit_is_on_the_encoded_size(shared_node: Node, reading: Reading, line_end: str) -> None:
    """E18: 200,000 line ends are 400 kB of JSON and 1.4 MB on the wire."""
    assert_refused(post_json(shared_node, data=line_end * 200_000), 413, "data")
    assert post_form(shared_node, data=line_end * 100_000)[0] == 200
    assert reading.next_of(HUB)[1] == "\n" * 100_000


def may_be_refused(kind: str | None, event_id: str | None) -> bool:
    """True if the documents name a reason to refuse such a type or id on channel main."""
    if kind is not None and (not is_safe(kind) or kind in CONTROL_EVENTS | {"", "open", "error", "mercure"}):
        return True
    if event_id is None:
        return False
    return (
        not is_safe(event_id)
        or event_id in ("", "earliest")
        or event_id.startswith("#")
        or event_id != event_id.strip()
    )


TEXT = st.text(alphabet=list("\r\n\0 :\t\ufeff\u2028aédit{"), max_size=30) | st.text(max_size=30)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=TEXT, kind=st.none() | TEXT, event_id=st.none() | TEXT)
def test_whatever_is_accepted_arrives_as_exactly_one_event(
    shared_node: Node, reading: Reading, data: str, kind: str | None, event_id: str | None
) -> None:
    """E20: random fields by form; 200 means one event with just these, anything else is a 400 that has a reason."""
    fields = {name: value for name, value in (("type", kind), ("id", event_id)) if value is not None}
    status, body = post_form(shared_node, data=data, **fields)
    if status != 200:
        assert status == 400
        assert may_be_refused(kind, event_id), body
        return
    expected = data.replace("\r\n", "\n").replace("\r", "\n")
    assert reading.next_of(HUB) == (kind or "message", expected, body.decode())
    assert not event_id or body.decode() == event_id
