"""Keys of kept answers: equal questions have equal keys, different ones never.

Owns what a question is: method, route, the arguments of its path, and its parameters as the endpoint reads them, so
with defaults filled in, numbers as numbers, in one order, and without what the endpoint does not know. What else is in
a request (headers, address) is no part of it. Must never know where answers are kept. Pure.

Cost: about 7 microseconds for four parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from hashlib import sha256
from json import dumps
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from handlers.endpoints import Call, Endpoint
from handlers.fields import parse_query

PREFIX = "http:cache:"
# Parameters that say how to answer and not what: they are no part of the question.
CONTROLS = frozenset({"cache", "bypass_cache"})


def key_of(endpoint: Endpoint, call: Call, audience: str = "") -> str:
    """The key of a question. `audience`: for whom the answer is, where that matters."""
    parameters = _fields(call.query, but=CONTROLS) if isinstance(call.query, BaseModel) else {}
    question = [endpoint.method, endpoint.path, sorted(call.arguments.items()), sorted(parameters.items()), audience]
    return PREFIX + sha256(_written(question).encode()).hexdigest()


def wants_fresh(query: str) -> bool:
    """True if the raw query says `cache=skip` or `bypass_cache=true`."""
    if "cache" not in query and "%" not in query:
        return False
    pairs = parse_query(query)
    return ("cache", b"skip") in pairs or ("bypass_cache", b"true") in pairs


def _written(value: object) -> str:
    # Not ujson: this one takes lone surrogates and never rounds a number.
    return dumps(value, separators=(",", ":"))


def _fields(model: BaseModel, but: frozenset[str] = frozenset()) -> dict[str, Any]:
    """The values of a model, and not their dump: that leaves out what is declared as not for output."""
    values = {name: getattr(model, name) for name in type(model).model_fields} | (model.model_extra or {})
    return {name: _canonical(value) for name, value in values.items() if name not in but}


def _canonical(value: Any) -> Any:
    """The same for values that mean the same (6.5 and 6.50, 6 and 6.0, 0 and -0), another for any other."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if isinstance(value, Decimal):
        return ["number", str(value.normalize() + 0)]
    if isinstance(value, (set, frozenset)):
        return sorted(map(_canonical, value), key=_written)
    if isinstance(value, (list, tuple)):
        return list(map(_canonical, value))
    if isinstance(value, BaseModel):
        value = _fields(value)
    if isinstance(value, Mapping):
        return ["object", sorted(([_canonical(key), _canonical(one)] for key, one in value.items()), key=_written)]
    return [type(value).__name__, to_jsonable_python(value)]  # dates, UUIDs
