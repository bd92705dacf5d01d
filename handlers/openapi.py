"""The description of the API: OpenAPI 3.1, made of the same declarations that serve it.

Owns the form of the document. Must never know more of an endpoint than it declares; so what is not declared is not
described, and what is described is served. Made once, at the first request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from http.client import responses
from typing import Any

from pydantic import BaseModel

from handlers.endpoints import Call, Endpoint, Reply, everybody
from handlers.streams import StreamRoute

PATH = "/openapi.json"
_COMPONENTS = "#/components/schemas/{model}"
_ERROR = {
    "type": "object",
    "required": ["code", "reason"],
    "properties": {
        "code": {"type": "string", "description": "What kind of error it is."},
        "field": {"type": "string", "description": "The parameter or field that it is about."},
        "reason": {"type": "string", "description": "What is wrong, for people."},
        "errors": {"type": "array", "items": {"type": "object"}, "description": "All of them, if there are several."},
    },
}


def openapi_endpoint(endpoints: Sequence[Endpoint], streams: Sequence[StreamRoute]) -> Endpoint:
    """The endpoint that gives the description of all others."""
    made: list[Mapping[str, Any]] = []

    async def run(_: Call) -> Reply:
        if not made:
            made.append(document(endpoints, streams))
        return Reply(made[0])

    return Endpoint("GET", PATH, run, "This description.", tag="api")


def document(endpoints: Sequence[Endpoint], streams: Sequence[StreamRoute]) -> dict[str, Any]:
    """The whole description."""
    schemas: dict[str, Any] = {"Error": _ERROR}
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, schemas)
    for route in streams:
        paths.setdefault(route.path, {})["get"] = _stream(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Ringcast applications", "version": "1", "license": {"name": "Apache-2.0"}},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
    }


def _operation(endpoint: Endpoint, schemas: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": responses[endpoint.status]}
    if endpoint.reply is not None:
        answer["content"] = {"application/json": {"schema": _schema(endpoint.reply, schemas)}}
    statuses = {400, 401, 403, 503, *endpoint.errors}
    operation: dict[str, Any] = {
        "summary": endpoint.summary,
        "tags": [endpoint.tag or "api"],
        "parameters": [*_path_parameters(endpoint.path), *_query_parameters(endpoint.query, schemas)],
        "responses": {str(endpoint.status): answer},
    }
    if "{" in endpoint.path:
        statuses.add(404)
    if endpoint.body is not None:
        statuses |= {413, 415, 422}
        content = {"application/json": {"schema": _schema(endpoint.body, schemas)}}
        operation["requestBody"] = {"required": True, "content": content}
    if endpoint.access is not everybody:
        operation["security"] = [{"bearer": []}]
    operation["responses"] |= {str(status): _error(status) for status in sorted(statuses)}
    return operation


def _stream(route: StreamRoute, schemas: dict[str, Any]) -> dict[str, Any]:
    events = "; ".join(f"`{name}`: {meaning}" for name, meaning in route.events.items())
    stream = {"description": events or "Events.", "content": {"text/event-stream": {"schema": {"type": "string"}}}}
    parameters = [*_path_parameters(route.path)]
    if route.query is not None:
        parameters += _query_parameters(route.query, schemas)
    return {
        "summary": route.summary,
        "tags": ["streams"],
        "parameters": parameters,
        "responses": {"200": stream, "204": {"description": "There will be no more events."}}
        | {str(status): _error(status) for status in (400, 401, 403, 404, 429, 503)},
    }


def _error(status: int) -> dict[str, Any]:
    if status == HTTPStatus.NO_CONTENT:
        return {"description": responses[status]}
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {"description": responses[status], "content": content}


def _path_parameters(path: str) -> list[dict[str, Any]]:
    names = [part.partition("}")[0] for part in path.split("{")[1:]]
    schema = {"type": "string", "minLength": 1}
    return [{"name": name, "in": "path", "required": True, "schema": schema} for name in names]


def _query_parameters(model: type[BaseModel], schemas: dict[str, Any]) -> list[dict[str, Any]]:
    schema = model.model_json_schema(ref_template=_COMPONENTS)
    _put(schemas, schema.get("$defs", {}))
    required = schema.get("required", [])
    return [
        {"name": name, "in": "query", "required": name in required, "schema": of}
        for name, of in schema.get("properties", {}).items()
    ]


def _schema(model: type[BaseModel], schemas: dict[str, Any]) -> dict[str, Any]:
    schema = model.model_json_schema(ref_template=_COMPONENTS)
    _put(schemas, schema.pop("$defs", {}) | {model.__name__: schema})
    return {"$ref": _COMPONENTS.format(model=model.__name__)}


def _put(schemas: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Raises ValueError if two models that differ have one name."""
    for name, schema in more.items():
        if schemas.setdefault(name, schema) != schema:
            raise ValueError(f"two models are called {name}")
