"""Any form, however bad, is published once with the answered id or refused with 400 or 413; the server never fails,
never hangs, never sends what it refused.
"""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.harness.process import Node
from tests.mercure.hub import FORM, PATH, Hub

NAMES = ["topic", "topic", "topic", "data", "private", "id", "type", "retry"]
NASTY = [
    "", "*", "#", "#a", "earliest", "a\x00", "a\nb", "\r", "\x7f", "\x85", "\u2028", "\u200b", "\ufeff", "\ud7ff",
    "mercure", "hello", "open", "/.well-known/mercure", "mercure/x", "{a", "{+a}", "%", "%41", "https://[x", "//[",
    "http://a:b/", "-1", "+5", "٥", "9" * 30, "5000", "😀" * 70, "x" * 4097,
]  # fmt: skip

values = st.one_of(
    st.sampled_from(NASTY).map(str.encode),
    st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.binary(max_size=40),
    st.integers(0, 1 << 70).map(lambda number: str(number).encode()),
)
fields = st.tuples(st.one_of(st.sampled_from(NAMES).map(str.encode), st.binary(max_size=8)), values)
encoded = st.lists(fields, max_size=12).map(
    lambda pairs: b"&".join(quote_from_bytes(k).encode() + b"=" + quote_from_bytes(v).encode() for k, v in pairs)
)
bodies = st.one_of(
    encoded,
    encoded,
    encoded.map(lambda body: b"topic=a&" + body),
    st.binary(max_size=200),
    st.just(b"topic=a&") | st.text(max_size=50).map(str.encode),
)


class Publisher:
    """One kept-alive connection that is opened again when the server closes it."""

    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)

    def post(self, body: bytes, content_type: str = FORM) -> tuple[int, bytes]:
        self.connection.request("POST", PATH, body, {"Content-Type": content_type})
        answer = self.connection.getresponse()
        return answer.status, answer.read()


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A server of its own: what is published here would drown other tests' history."""
    server = Node(tmp_path_factory.mktemp("fuzzed-node")).start()
    yield server
    server.kill()
    assert "Traceback" not in server.log()


@settings(max_examples=600, suppress_health_check=[HealthCheck.too_slow])
@given(bodies)
@example(b"topic=a&data=%0Aid:%20x%0A%0Adata:%20y")
@example(b"topic=a&id=x%0Adata:y")
@example(b"&" * 200_000)
@example(b"topic=a&" * 50_000)
@example(b"a=" * 100_000)
@example(b"%" * 100_000)
def test_any_form_has_a_defined_answer(target: Node, body: bytes) -> None:
    """P1: 200 with an id that then comes on the stream, or 400, or 413."""
    hub, publisher = Hub(target), Publisher(target.port)
    try:
        watch = hub.watch([("topic", "*")])
        status, answer = publisher.post(body)
        assert status in (200, 400, 413), (status, answer)
        expected = [answer.decode("utf-8")] if status == 200 else []
        assert all(expected), "an id is never empty"
        assert [event.id for event in watch.events()] == expected
    finally:
        publisher.connection.close()
        hub.close()


@settings(max_examples=60)
@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60), encoded)
def test_any_media_type_has_a_defined_answer(target: Node, content_type: str, body: bytes) -> None:
    """P1: only the form's own is read."""
    publisher = Publisher(target.port)
    try:
        assert publisher.post(b"topic=a&" + body, content_type)[0] in (200, 400, 413)
    finally:
        publisher.connection.close()


def test_the_server_is_well_after_it_all(target: Node) -> None:
    """P1: it answers, and nothing of the fuzz is in the way."""
    assert target.get("/health")[0] == 200
    assert Hub(target).offer([("topic", "a")]).status == 200
