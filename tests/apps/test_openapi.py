"""What /openapi.json says is so: requests that schemathesis makes of it, good and bad, are answered as it says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode, checks
from schemathesis.specs.openapi import checks as openapi_checks

from config.applications import APPLICATIONS
from tests.harness.process import Node

SOME = settings(
    max_examples=15,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
CHECKS = [
    checks.not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_headers_conformance,
    openapi_checks.response_schema_conformance,
    openapi_checks.negative_data_rejection,
]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """All applications; nobody needs a token, and nothing happens by itself."""
    folder = tmp_path_factory.mktemp("api")
    database = f"sqlite:{folder}/data.db"
    one = Node(folder, apps=",".join(APPLICATIONS), database=database, simulate=False, jobs_per_minute=100_000)
    yield one.start()
    one.stop()
    assert "Traceback" not in one.log(), one.log()[-4000:]


@pytest.fixture(scope="module")
def description(node: Node) -> dict[str, Any]:
    status, _, body = node.get("/openapi.json")
    assert status == 200
    described: dict[str, Any] = json.loads(body)
    for path in described["paths"].values():
        for operation in path.values():
            operation.pop("security", None)  # there is no key here; who may do what is tested by each application
    return described


@pytest.mark.parametrize("quarter", range(4))
@pytest.mark.parametrize("mode", GenerationMode)
def test_every_answer_is_as_described(
    node: Node, description: dict[str, Any], quarter: int, mode: GenerationMode
) -> None:
    api = schemathesis.openapi.from_dict(description).exclude(tag="streams")  # those do not end
    api.config.checks.negative_data_rejection.expected_statuses.append("413")
    for found in list(api.get_all_operations())[quarter::4]:
        operation = found.ok()
        if mode.is_negative and not (operation.query or operation.body):
            continue  # nothing in it can be wrong

        @SOME
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: Any) -> None:
            case.call_and_validate(base_url=f"http://127.0.0.1:{node.port}", checks=CHECKS, timeout=10)

        ask()


@pytest.mark.parametrize(
    "path",
    [
        "/api/facilities/search", "/api/facilities/{id}", "/api/facilities/suggest", "/api/geocode",
        "/api/insurance-providers", "/api/procedures", "/api/stream/facilities/{id}", "/api/stream/facilities/region",
        "/api/v1/prices/stream", "/api/v1/prices/history/{id}", "/api/v1/stream/events", "/internal/broadcast",
        "/api/v1/jobs", "/api/v1/jobs/{jobId}/events", "/stream/updates", "/stream/stats", "/stream/health",
    ],
)  # fmt: skip
def test_the_paths_that_clients_know_are_described(description: dict[str, Any], path: str) -> None:
    assert path in description["paths"]
