"""What a publisher may send and gets back: rows P1 to P9 and P12 to P15."""

from __future__ import annotations

import re
import select
import socket
from urllib.parse import quote, urlencode

import pytest

from tests.mercure.hub import FORM, PATH, Hub, token

MEBIBYTE = 1 << 20


def head(**fields: str | int) -> bytes:
    """The head of a form's POST. Underscores become hyphens."""
    named = {"Host": "localhost", "Content-Type": FORM} | {
        name.replace("_", "-"): value for name, value in fields.items()
    }
    lines = [f"POST {PATH} HTTP/1.1", *(f"{name}: {value}" for name, value in named.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def answered_status(connection: socket.socket) -> int:
    """The status of the answer that comes on a raw connection."""
    with connection.makefile("rb") as file:
        return int(file.readline().split()[1])


@pytest.mark.parametrize("content_type", [FORM, f"{FORM}; charset=utf-8", f"{FORM};charset=UTF-8", FORM.upper()])
def test_a_form_is_published(hub: Hub, topic: str, content_type: str) -> None:
    """P1: with or without the charset's name."""
    assert hub.post(urlencode({"topic": topic}), Content_Type=content_type).status == 200


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "text/plain", "multipart/form-data; boundary=x", "", "application/x-www-form-urlencodedx"],
)
def test_another_media_type_is_refused(hub: Hub, topic: str, content_type: str) -> None:
    """P1: 400, whatever the body looks like."""
    answer = hub.post(urlencode({"topic": topic}), Content_Type=content_type)
    assert (answer.status, answer.error["code"]) == (400, "bad_request")


@pytest.mark.parametrize("body", ["", "data=x", "Topic=a", "topics=a", "&&&", "=a"])
def test_a_form_without_a_topic_is_refused(hub: Hub, body: str) -> None:
    """P1: 400 that names the field."""
    answer = hub.post(body)
    assert (answer.status, answer.refused_field) == (400, "topic")


def test_the_form_is_read_as_a_form(hub: Hub, topic: str) -> None:
    """P1: a plus is a space, edges and control characters of the data stay."""
    watch = hub.watch([("topic", topic)])
    hub.post(f"topic={quote(topic)}&data=+a+b%2B%00%09;c++")
    assert watch.data() == [" a b+\x00\t;c  "]


def test_alternate_topics_reach_their_readers_once(hub: Hub, topic: str) -> None:
    """P2: whichever topics a subscription matches."""
    names = [f"{topic}/canonical", f"{topic}/alternate", f"{topic}/third"]
    watches = [hub.watch([("topic", name)]) for name in names] + [
        hub.watch([("topic", f"{topic}/{{any}}")]),
        hub.watch([("match", name) for name in names]),
    ]
    hub.publish(names, "one")
    assert [watch.data() for watch in watches] == [["one"]] * 5


@pytest.mark.parametrize("data", ["%FF", "a%C3", "%ED%A0%80", "%F4%90%80%80"])
def test_data_that_is_no_utf_8_is_refused(hub: Hub, topic: str, data: str) -> None:
    """P3: 400; nothing is replaced silently."""
    watch = hub.watch([("topic", topic)])
    assert hub.post(f"topic={quote(topic)}&data={data}").status == 400
    assert watch.data() == []


@pytest.mark.parametrize("data", ["é日😀", "\ufeffstarts with a mark", "\ud7ff\ue000", "a\x00b", "x" * 100_000])
def test_data_goes_out_as_it_came(hub: Hub, topic: str, data: str) -> None:
    """P3: opaque text."""
    watch = hub.watch([("topic", topic)])
    hub.publish(topic, data)
    assert watch.data() == [data]


@pytest.mark.parametrize("field", ["private", "private=", "private=on", "private=off", "private=0", "private=false"])
def test_private_counts_by_being_there(public_hub: Hub, topic: str, field: str) -> None:
    """P4: its value is ignored."""
    watch = public_hub.watch([("topic", topic)])
    assert public_hub.post(f"topic={quote(topic)}&data=secret&{field}").status == 200
    assert watch.data() == []


@pytest.mark.parametrize(
    "own",
    ["1", "urn:uuid:e1ee88e2-532a-4d6f-ba70-f0f8bd584022", "a b", "é日", "not-earliest", "EARLIEST", "a#b", "x" * 256],
)
def test_a_publishers_own_id_is_the_events_id(hub: Hub, topic: str, own: str) -> None:
    """P5: on the wire and in the answer."""
    watch = hub.watch([("topic", topic)])
    assert hub.publish(topic, "x", id=own) == own
    assert [block.id for block in watch.events()] == [own]


@pytest.mark.parametrize(
    "own", ["#", "#a", "earliest", "a\x00", "a\nb", "a\rb", "a\x7f", "a\x85", "a\u200b", "\u202ea", "\ufeff"]
)
def test_an_id_that_could_be_misread_is_refused(hub: Hub, topic: str, own: str) -> None:
    """P5: 400, and nothing goes out."""
    watch = hub.watch([("topic", topic)])
    answer = hub.offer([("topic", topic), ("id", own)])
    assert (answer.status, answer.refused_field) == (400, "id")
    assert watch.data() == []


def test_an_id_that_is_no_utf_8_is_refused(hub: Hub, topic: str) -> None:
    """P5: 400."""
    assert hub.offer([("topic", topic), ("id", b"a\xff")]).status == 400


def test_an_id_of_the_servers_own_form_in_its_epoch_is_refused(hub: Hub, topic: str) -> None:
    """P5: it would be taken for a place in the log; one of another epoch is only a text."""
    given = hub.publish(topic)
    epoch, _, position = given.partition("-")
    answer = hub.offer([("topic", topic), ("id", f"{epoch}-{int(position, 16) + 1:013x}")])
    assert (answer.status, answer.refused_field) == (400, "id")
    other = ("a" if epoch[0] != "a" else "b") + epoch[1:]
    assert hub.publish(topic, id=f"{other}-{position}") == f"{other}-{position}"


def test_the_same_own_id_twice_is_two_events(hub: Hub, topic: str) -> None:
    """P5: ids are not keys of idempotency."""
    watch = hub.watch([("topic", topic)])
    for data in ("1", "2"):
        hub.publish(topic, data, id=f"urn:same:{topic}")
    assert watch.data() == ["1", "2"]


@pytest.mark.parametrize("fields", [[], [("id", "")]])
def test_without_an_id_the_server_makes_one(hub: Hub, topic: str, fields: list[tuple[str, str | bytes]]) -> None:
    """P6: an empty one counts as absent."""
    answer = hub.offer([("topic", topic), *fields])
    assert re.fullmatch(r"[0-9a-z]{6}-[0-9a-f]{13}", answer.text), answer


@pytest.mark.parametrize("type_", ["update", "price-update", "é", "a b", "Message", "Mercure", "x" * 256])
def test_a_type_goes_out(hub: Hub, topic: str, type_: str) -> None:
    """P7: as it came."""
    watch = hub.watch([("topic", topic)])
    hub.publish(topic, "x", type=type_)
    assert [block.type for block in watch.events()] == [type_]


@pytest.mark.parametrize("type_", ["a\nb", "a\rdata: x", "a\x00", "a\x7f", "a\x9f", "a\u200d", "\u2066a"])
def test_a_type_with_control_or_format_characters_is_refused(hub: Hub, topic: str, type_: str) -> None:
    """P7: 400."""
    answer = hub.offer([("topic", topic), ("type", type_)])
    assert (answer.status, answer.refused_field) == (400, "type")


@pytest.mark.parametrize(
    "type_",
    [
        "mercure",
        "hello",
        "gap",
        "heartbeat",
        "open",
        "error",
        "overloaded",
        "draining",
        "max_age",
        "auth_expired",
        "finished",
    ],
)
def test_reserved_types_are_refused(hub: Hub, topic: str, type_: str) -> None:
    """P7: nobody may speak in the server's or the browser's name."""
    answer = hub.offer([("topic", topic), ("type", type_)])
    assert (answer.status, answer.refused_field) == (400, "type")


@pytest.mark.parametrize(
    "retry", ["+5", "-1", "1.5", "1e3", " 5", "5 ", "0x10", "٥", "５", "five", "5s", "1_000", "5\n"]
)
def test_a_retry_that_is_not_of_digits_is_refused(hub: Hub, topic: str, retry: str) -> None:
    """P8: ASCII digits only."""
    answer = hub.offer([("topic", topic), ("retry", retry)])
    assert (answer.status, answer.refused_field) == (400, "retry")


def test_unknown_fields_are_ignored(hub: Hub, topic: str) -> None:
    """P9: whatever they hold."""
    watch = hub.watch([("topic", topic)])
    assert (
        hub.offer([("topic", topic), ("data", "x"), ("Data", "y"), ("future", "1\n2"), ("match", "*"), ("", "")]).status
        == 200
    )
    assert watch.data() == ["x"]


def test_a_body_beyond_the_limit_is_refused_before_it_is_read(hub: Hub) -> None:
    """P12: 413 on its declared length."""
    with socket.create_connection(("127.0.0.1", hub.node.port), timeout=5) as connection:
        connection.sendall(head(Content_Length=MEBIBYTE + 1))
        assert answered_status(connection) == 413


def test_a_chunked_body_beyond_the_limit_is_refused(hub: Hub) -> None:
    """P12: 413 without a declared length too."""
    with socket.create_connection(("127.0.0.1", hub.node.port), timeout=5) as connection:
        connection.sendall(head(Transfer_Encoding="chunked"))
        for _ in range(100):
            if select.select([connection], [], [], 0)[0]:
                break
            connection.sendall(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
        assert answered_status(connection) == 413


@pytest.mark.parametrize(
    ("field", "longest", "beyond"),
    [
        ("topic", "x" * 4096, "x" * 4097),
        ("topic", "é" * 2048, "é" * 2049),
        ("id", "x" * 256, "x" * 257),
        ("id", "é" * 128, "é" * 129),
        ("type", "x" * 256, "x" * 257),
    ],
)
def test_a_field_beyond_its_limit_is_refused(hub: Hub, topic: str, field: str, longest: str, beyond: str) -> None:
    """P12: 413; limits are bytes of UTF-8."""
    fields = [("topic", topic)]
    assert hub.offer([*fields, (field, longest)]).status == 200
    assert hub.offer([*fields, (field, beyond)]).status == 413


def test_a_hundred_topics_are_published_and_one_more_is_refused(hub: Hub, topic: str) -> None:
    """P12: 413, not 400."""
    topics = [("topic", f"{topic}/{number}") for number in range(100)]
    assert hub.offer(topics).status == 200
    assert hub.offer([*topics, ("topic", topic)]).status == 413


def test_the_encoded_event_has_a_limit_of_its_own(hub: Hub, topic: str) -> None:
    """P12: each line of data costs a field name, so 300,000 empty lines are more than a mebibyte."""
    assert hub.offer([("topic", topic), ("data", "x" * 1_000_000)]).status == 200
    assert hub.offer([("topic", topic), ("data", "\n" * 300_000)]).status == 413


def test_success_is_200_with_the_id_alone(hub: Hub, topic: str) -> None:
    """P13: as UTF-8 text, without a line end."""
    answer = hub.offer([("topic", topic), ("id", "é")])
    assert (answer.status, answer.body) == (200, "é".encode())
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"


BAD_TOKEN = token(publish=["*"], secret="another secret of at least thirty-two bytes")
NO_GRANT = token(publish=["https://elsewhere.example/"])

STEPS: list[tuple[int, str, list[tuple[str, str | bytes]], dict[str, str]]] = [
    (401, "", [], {"Authorization": f"Bearer {BAD_TOKEN}"}),
    (413, "", [("topic", str(number)) for number in range(101)], {}),
    (400, "topic", [("topic", "*")], {}),
    (400, "retry", [("retry", "x")], {}),
    (403, "", [], {"Authorization": f"Bearer {NO_GRANT}"}),
    (400, "type", [("type", "mercure")], {}),
]


@pytest.mark.parametrize("first", range(len(STEPS)))
def test_checks_have_an_order(keyed_hub: Hub, topic: str, first: int) -> None:
    """P14: token, size and syntax, topics, retry, grants, the rest; each fault is told before all later ones."""
    status, field, _, _ = STEPS[first]
    fields: list[tuple[str, str | bytes]] = [("topic", topic)]
    headers: dict[str, str] = {}
    for _, _, more, own in reversed(STEPS[first:]):
        fields += more
        headers |= own
    answer = keyed_hub.offer(fields, **headers)
    assert answer.status == status, answer
    assert not field or answer.refused_field == field


def test_a_bad_token_is_told_before_an_oversized_body(keyed_hub: Hub) -> None:
    """P14: whoever may not publish needn't send."""
    with socket.create_connection(("127.0.0.1", keyed_hub.node.port), timeout=5) as connection:
        connection.sendall(head(Authorization=f"Bearer {BAD_TOKEN}", Content_Length=MEBIBYTE + 1))
        assert answered_status(connection) == 401


def test_a_publish_counts_though_its_publisher_hangs_up(hub: Hub, topic: str) -> None:
    """P15: the whole request was there."""
    watch = hub.watch([("topic", topic)])
    body = urlencode({"topic": topic, "data": "gone"}).encode()
    with socket.create_connection(("127.0.0.1", hub.node.port), timeout=5) as connection:
        connection.sendall(head(Content_Length=len(body)) + body)
    assert watch.stream.events(1)[0].data == "gone"
