"""Every stream of the running product, by nginx: one that is missing from its configuration is noticed here."""

from __future__ import annotations

import contextlib
import json
import re

import pytest

from config.applications import APPLICATIONS
from handlers.rooms import MERCURE_PATH
from tests.commands.scripted import HOLD, answer, stream
from tests.harness.process import Node, free_port
from tests.nginx.conftest import Script, StartNginx
from tests.nginx.test_limits import few
from tests.nginx.test_outages import EVENT_STREAM, NO_ONE, check_told_to_come_back

# Of the general endpoints, which no application declares.
GENERAL = ["/channels/main/events", MERCURE_PATH]
# Of an application of one's own, which the configuration can't know.
UNKNOWN = "/api/things/7/events"
SECRET = "CANARYxQz"


@pytest.fixture(scope="module")
def routes(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Paths of the streams of a node with all applications, as it describes them itself."""
    folder = tmp_path_factory.mktemp("product")
    node = Node(folder, apps=",".join(APPLICATIONS), database=f"sqlite:{folder}/data.db", simulate=False).start()
    try:
        described = json.loads(node.get("/openapi.json")[2])["paths"]
    finally:
        node.kill()
    found = [path for path, methods in described.items() if EVENT_STREAM in json.dumps(methods.get("get", {}))]
    assert len(found) >= len(APPLICATIONS)
    return found + GENERAL


def with_arguments(route: str, argument: str = "7") -> str:
    """A path of this route."""
    return re.sub(r"\{\w+\}", argument, route)


def test_each_asks_its_event_sources_back_while_no_node_answers(nginx: StartNginx, routes: list[str]) -> None:
    """Contract 9: anything but 200 would be the last that they ask for. Who reads a status gets it. The log has the
    route, so an outage can be told from it, and nothing that a client has put into the path."""
    front = nginx(f"127.0.0.1:{free_port()}")
    for route in routes:
        path = f"{with_arguments(route, SECRET)}?token={SECRET}"
        retry_ms = check_told_to_come_back(*front.get(path, Accept=EVENT_STREAM))
        assert 2000 <= retry_ms <= 9900
        status, _, body = front.get(path, Accept="*/*")
        assert (status, json.loads(body)) == (502, NO_ONE)
    assert front.stop() == 0
    assert SECRET not in front.access_log.read_text() + front.errors()
    logged = [(line["path"], line["status"], line["refused"]) for line in front.access()]
    assert sorted(logged) == sorted((route, status, "unavailable") for route in routes for status in (200, 502))


def test_each_is_counted_whatever_its_client_accepts(scripted: Script, nginx: StartNginx, routes: list[str]) -> None:
    """S06: what is a stream is not for the client's header to say. If one were not counted, one more would be let in. A
    page takes no stream's place."""
    node = scripted(*[stream(": a stream\n\n", end=False) + HOLD for _ in routes], answer(200))
    front = nginx(f"127.0.0.1:{node.port}", changes=few(len(routes)))
    paths = list(map(with_arguments, routes))
    with contextlib.ExitStack() as held:
        for path in paths:
            held.enter_context(front.stream(path, Accept="*/*"))
        for path in paths:
            assert front.get(path, Accept="*/*")[0] == 429, path
            check_told_to_come_back(*front.get(path, Accept=EVENT_STREAM), code="too_many")
        assert front.get("/apps/jobs/", Accept="*/*")[0] == 200


def test_each_passes_a_node_s_own_answers_on(scripted: Script, nginx: StartNginx, routes: list[str]) -> None:
    """9.5: 204 ends a client whose stream is over, and 401, 403 and 404 one that may not have it."""
    statuses = (204, 401, 403, 404)
    paths = [*map(with_arguments, routes), UNKNOWN]
    node = scripted(*[answer(status, None if status == 204 else {"code": "x"}) for _ in paths for status in statuses])
    front = nginx(f"127.0.0.1:{node.port}")
    for path in paths:
        for status in statuses:
            given, headers, body = front.get(path, Accept=EVENT_STREAM)
            assert (given, body) == (status, b"" if status == 204 else b'{"code": "x"}'), path
            assert headers["content-type"] == "application/json"
            assert "retry-after" not in headers


def test_a_stream_that_nobody_has_named_strands_nobody(nginx: StartNginx) -> None:
    """Its header is enough to ask it back; of its path the log has nothing."""
    front = nginx(f"127.0.0.1:{free_port()}")
    check_told_to_come_back(*front.get(UNKNOWN, Accept=EVENT_STREAM))
    assert front.get(UNKNOWN, Accept="*/*")[0] == 502
    assert front.stop() == 0
    assert [line["path"] for line in front.access()] == ["", ""]


def test_a_stream_that_nobody_has_named_is_counted_by_its_header(scripted: Script, nginx: StartNginx) -> None:
    """S06: an application of one's own has the limit without a change here."""
    node = scripted(stream(": a stream\n\n", end=False) + HOLD)
    front = nginx(f"127.0.0.1:{node.port}", changes=few(1))
    with front.stream(UNKNOWN):
        check_told_to_come_back(*front.get(UNKNOWN, Accept=EVENT_STREAM), code="too_many")
