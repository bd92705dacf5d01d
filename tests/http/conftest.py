"""What the HTTP tests share: topics that nobody else uses, the endpoints, and servers with tokens and origins."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from tests.harness.process import TOKEN_SECRET, Node
from tests.http.endpoint import ENDPOINTS, Endpoint

ALLOWED = "https://app.example"
_numbers = itertools.count(1)


@pytest.fixture
def topic() -> str:
    """A topic of this test's own."""
    return f"http-test-{next(_numbers)}"


@pytest.fixture(params=ENDPOINTS, ids=lambda endpoint: endpoint.channel)
def endpoint(request: pytest.FixtureRequest) -> Endpoint:
    """Each of the endpoints that stream."""
    found: Endpoint = request.param
    return found


@pytest.fixture(scope="module")
def keyed_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A server that wants tokens and allows one web origin."""
    server = Node(
        tmp_path_factory.mktemp("keyed"), jwt_secret=TOKEN_SECRET, allowed_origins=f"{ALLOWED},http://127.0.0.1:3000"
    ).start()
    yield server
    server.kill()
