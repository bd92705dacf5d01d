"""What /openapi.json says is so: requests that schemathesis makes of it, good and bad, are answered as it says."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode, checks
from schemathesis.specs.openapi import checks as openapi_checks

from tests.apps.furnished import Furnished
from tests.harness.databases import DATABASES, new_database

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
PARTS = 4
GRANTED = (200, 201, 204)


@pytest.fixture(scope="module", params=DATABASES)
def furnished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Furnished]:
    """One node over each database; nothing happens by itself."""
    folder = tmp_path_factory.mktemp("api")
    one = Furnished(folder, new_database(request, request.param, folder))
    yield one.start()
    one.stop()


@pytest.fixture(scope="module")
def description(furnished: Furnished) -> dict[str, Any]:
    status, _, body = furnished.node.get("/openapi.json")
    assert status == 200
    described: dict[str, Any] = json.loads(body)
    return described


@pytest.fixture(scope="module")
def api(description: dict[str, Any]) -> Any:
    """What schemathesis makes of it: all but the streams, which do not end. The token comes with each request, so it
    makes up none; who gets in without one is another test."""
    described = json.loads(json.dumps(description))
    for path in described["paths"].values():
        for operation in path.values():
            operation.pop("security", None)
    made = schemathesis.openapi.from_dict(described).exclude(tag="streams")
    made.config.checks.negative_data_rejection.expected_statuses.append("413")
    return made


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as made:
        yield made


@pytest.mark.parametrize("part", range(PARTS))
def test_every_answer_is_as_described(furnished: Furnished, api: Any, session: requests.Session, part: int) -> None:
    for operation in operations(api)[part::PARTS]:
        ask_anything(furnished, session, operation, GenerationMode.POSITIVE)


# One database is enough: what is not valid comes to none.
@pytest.mark.parametrize("furnished", DATABASES[:1], indirect=True)
@pytest.mark.parametrize("part", range(PARTS))
def test_what_is_not_as_described_is_refused(
    furnished: Furnished, api: Any, session: requests.Session, part: int
) -> None:
    for operation in operations(api)[part::PARTS]:
        if operation.query or operation.body:  # or else nothing in it can be wrong
            ask_anything(furnished, session, operation, GenerationMode.NEGATIVE)


def operations(api: Any) -> list[Any]:
    """All that are described, but the streams."""
    return [found.ok() for found in api.get_all_operations()]


def ask_anything(furnished: Furnished, session: requests.Session, operation: Any, mode: GenerationMode) -> None:
    """Make requests up; half of them ask for what is there."""

    @SOME
    @given(case=operation.as_strategy(generation_mode=mode), there=st.booleans())
    def ask(case: Any, there: bool) -> None:
        if there:
            case.path_parameters = furnished.arguments(case.method, case.path)
        answered(furnished, session, case, furnished.headers())

    ask()


def answered(furnished: Furnished, session: requests.Session, case: Any, headers: Mapping[str, str]) -> Any:
    """The answer, which is as described."""
    return case.call_and_validate(
        base_url=furnished.node.url, session=session, headers=headers, checks=CHECKS, timeout=10
    )


def rightful(furnished: Furnished, operation: Any) -> Iterator[Any]:
    """Requests that are granted to whoever has the token."""
    method, path = operation.method.upper(), operation.path
    for wanted in furnished.rightful(method, path):
        body = {} if wanted.body is None else {"body": wanted.body, "media_type": "application/json"}
        yield operation.Case(path_parameters=furnished.arguments(method, path), query=dict(wanted.query), **body)


def test_every_operation_is_granted_and_says_what_is_described(
    furnished: Furnished, api: Any, session: requests.Session
) -> None:
    """No operation is without: a description is checked against a body of it, or the answer has none."""
    for operation in operations(api):
        for case in rightful(furnished, operation):
            answer = answered(furnished, session, case, furnished.headers())
            assert answer.status_code in GRANTED, f"{operation.label}: {answer.status_code} {answer.text}"
            described = operation.definition.raw["responses"][str(answer.status_code)]
            assert ("content" in described) is bool(answer.content), operation.label


def test_every_answer_is_described_to_the_last_field(api: Any, description: dict[str, Any]) -> None:
    """So a field that is not described is not answered either."""
    schemas = description["components"]["schemas"]
    for operation in operations(api):
        for status, answer in operation.definition.raw["responses"].items():
            if status in ("200", "201"):
                name = answer["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
                loose = {one for one in reached(schemas, name) if schemas[one]["additionalProperties"] is not False}
                assert not loose, f"{operation.label}: {loose}"


def reached(schemas: Mapping[str, Any], name: str) -> set[str]:
    """A schema and those that it refers to."""
    found, todo = set[str](), [name]
    while todo:
        one = todo.pop()
        if one not in found:
            found.add(one)
            todo += [text.partition('"')[0] for text in json.dumps(schemas[one]).split("#/components/schemas/")[1:]]
    return found


def test_who_needs_a_token_is_described(
    furnished: Furnished, api: Any, session: requests.Session, description: dict[str, Any]
) -> None:
    """And what is said to those who have none."""
    for operation in operations(api):
        for case in rightful(furnished, operation):
            answer = answered(furnished, session, case, {})
            needed = "security" in description["paths"][case.path][case.method.lower()]
            assert answer.status_code in ((401,) if needed else GRANTED), f"{operation.label}: {answer.text}"


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
