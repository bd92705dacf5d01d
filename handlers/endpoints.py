"""Endpoints: requests and answers in JSON, declared in one place each.

Owns the declaration (method, path, who may, what comes in, what goes out), the reading of what came in, and its
refusal with a code, the field and the reason. The same declaration is what the API's description is made of
(handlers/openapi.py), so they can't disagree. Must never know of Tornado or of what an application does.

Status: 400 for what is no JSON, or a parameter that is not valid; 422 for JSON whose fields are not valid; 401, 403,
404, 409 as raised (`not_found`, `conflict`). Every refusal names the field.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, TypeVar

import ujson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from handlers.answers import COMMON_HEADERS, Refused, bad, dumps, missing_grant, missing_token
from handlers.fields import decoded, parse_query
from handlers.paths import pattern_of
from server.endings import BAD_REQUEST, NOT_FOUND
from server.event import is_safe
from server.exchange import Request, Response
from server.rights import ANONYMOUS, Principal

MAX_BODY_BYTES = 65_536

_NO_NUL = "no text may have the character NUL in it"
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")

ModelT = TypeVar("ModelT", bound=BaseModel)


def _check_safe(value: str) -> str:
    if not is_safe(value):
        raise ValueError("must not hold control or format characters")
    return value


# For a text that others get to see, in a list or a log.
Safe = AfterValidator(_check_safe)


class Body(BaseModel):
    """What comes in. A field that is not known is refused: it may be one that was mistyped."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, str_strip_whitespace=True)


class Query(BaseModel):
    """The parameters of a GET. One that is not known is ignored: links collect them."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, str_strip_whitespace=True)


class Answer(BaseModel):
    """What goes out, as the description shows it (`reply`): all of this, and nothing else."""

    model_config = ConfigDict(extra="forbid")


class Page(Query):
    """For lists: `limit` entries from `offset` on."""

    limit: Annotated[int, Field(ge=1, le=500)] = 50
    offset: Annotated[int, Field(ge=0, le=1_000_000)] = 0


class NoQuery(Query):
    """No parameters."""


@dataclass(slots=True)
class Call:
    """A request, read: the arguments of its path, its parameters and its body as the endpoint declares them, and who
    is asking."""

    request: Request
    arguments: Mapping[str, str]
    query: Any
    body: Any
    principal: Principal


@dataclass(slots=True)
class Reply:
    """An answer. `value` becomes JSON: dicts, lists, texts, numbers, or a pydantic model. None: no body (204). `tags`
    are what a kept answer depends on, `area` (latitude, longitude, radius in km) is where what it is about lies
    (handlers/response_cache.py)."""

    value: object = None
    status: int = 200
    headers: list[tuple[str, str]] = field(default_factory=list)
    tags: Sequence[str] = ()
    area: tuple[float, float, float] | None = None

    def response(self) -> Response:
        """As it goes out. Never cached by others unless the endpoint says so in a header of its own."""
        if self.value is None:
            return Response(204, headers=[*COMMON_HEADERS, *self.headers])
        value = self.value.model_dump(mode="json") if isinstance(self.value, BaseModel) else self.value
        return Response(self.status, dumps(value), headers=[*COMMON_HEADERS, *self.headers])


Check = Callable[[Call], None]
# In our words, where the library's would name a class of ours.
_REASONS = {"model_type": "must be an object", "model_attributes_type": "must be an object"}


def everybody(_: Call) -> None:
    """No token needed."""


def signed_in(call: Call) -> None:
    """A valid token, whoever's."""
    if call.principal is ANONYMOUS:
        raise missing_token()


def readers(channel: str) -> Check:
    """A token that grants a channel; to others what is there is not."""

    def check(call: Call) -> None:
        signed_in(call)
        if not call.principal.rights(channel).subscribe:
            raise not_found("", "there is nothing of that name")

    return check


def operators(call: Call) -> None:
    """A token with `ringcast.operate`."""
    signed_in(call)
    if not call.principal.operate:
        raise missing_grant("the token does not grant operating")


@dataclass(frozen=True)
class Endpoint:
    """One method of one path. `path` has arguments in braces, each one segment. `access` raises Refused.

    `keep_seconds`: answers to GET are kept so long for all who ask the same, by path and parameters; 0: never (see
    handlers/response_cache.py). `shared`: they depend on nobody, so they are for requests with a token or a cookie too.
    `drop_on_change` False: they live out their time, whatever of their tags is reported as changed.

    `head` judges a request before a byte of its body is read, in place of the engine's judging of tokens: who is asking
    is ANONYMOUS then. Such a path has no arguments.
    """

    method: str
    path: str
    run: Callable[[Call], Awaitable[Reply]]
    summary: str
    query: type[BaseModel] = NoQuery
    body: type[BaseModel] | None = None
    reply: type[Answer] | None = None
    access: Check = everybody
    errors: Sequence[int] = ()
    status: int = 200
    tag: str = ""
    keep_seconds: float = 0.0
    max_body_bytes: int = MAX_BODY_BYTES
    shared: bool = False
    drop_on_change: bool = True
    head: Callable[[Request], None] | None = None

    def __post_init__(self) -> None:
        if self.keep_seconds and (self.method != "GET" or self.body is not None):
            raise ValueError(f"{self.method} {self.path}: only answers to GET are kept")
        if self.head is not None and "{" in self.path:
            raise ValueError(f"{self.method} {self.path}: a path with arguments is not judged by its head")

    @cached_property
    def pattern(self) -> Any:
        """What paths of this endpoint look like."""
        return pattern_of(self.path)

    def read(self, request: Request, arguments: Mapping[str, str], principal: Principal) -> Call:
        """The request as this endpoint wants it. Raises Refused."""
        call = Call(request, arguments, None, None, principal)
        self.access(call)
        parameters: dict[str, str] = {}
        for name, value in parse_query(request.query):
            parameters.setdefault(name, decoded(name, value))
            if "\0" in parameters[name]:
                raise bad(name, _NO_NUL)
        call.query = _validated(self.query, parameters, 400)
        if self.body is not None:
            content = _json(request)
            call.body = _validated(self.body, content, 422)
            _check_writable(content)
        return call


def _json(request: Request) -> object:
    media_type = (request.header(b"content-type") or "").partition(";")[0].strip().lower()
    if media_type not in ("application/json", ""):
        raise Refused(BAD_REQUEST, "Content-Type", "must be application/json", status=415, code="unsupported_type")
    try:
        value: object = ujson.loads(request.body.decode())
    except (ValueError, RecursionError):
        raise bad("", "the body must be JSON") from None
    return value


def _check_writable(value: object) -> None:
    """A field that takes anything takes what is no JSON too (NaN, 1e400, half a surrogate pair): it could be kept, and
    never be given back. And a NUL no database wants. Raises Refused."""
    try:
        text = dumps(value)
    except (ValueError, OverflowError):
        raise bad("", "the body must be JSON") from None
    if _NUL.search(text):
        raise invalid("", _NO_NUL)


def _validated(model: type[ModelT], value: object, status: int) -> ModelT:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        problems = [
            {
                "field": ".".join(map(str, one["loc"])),
                "reason": _REASONS.get(one["type"]) or one["msg"].removeprefix("Value error, "),
            }
            for one in error.errors(include_url=False, include_context=False, include_input=False)
        ]
        first = problems[0]
        code = "bad_request" if status == 400 else "invalid"
        more = problems if len(problems) > 1 else None
        raise Refused(BAD_REQUEST, first["field"], first["reason"], status=status, code=code, more=more) from None


def not_found(field_name: str, reason: str) -> Refused:
    """404: there is nothing of that name, for who is asking."""
    return Refused(NOT_FOUND, field_name, reason)


def conflict(field_name: str, reason: str) -> Refused:
    """409: it can't be, as things stand."""
    return Refused(BAD_REQUEST, field_name, reason, status=409, code="conflict")


def invalid(field_name: str, reason: str) -> Refused:
    """422: well formed, and makes no sense."""
    return Refused(BAD_REQUEST, field_name, reason, status=422, code="invalid")
