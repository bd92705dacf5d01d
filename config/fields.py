"""Building blocks of the settings: types with a unit and a range, and `setting`, which explains a value in place.

Owns what every group of settings needs. Must never know a setting's name. The explanation stands beside the default, so
the reference (config/reference.py) and the code cannot disagree. Cost: import time only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.config import JsonDict

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
YEAR_SECONDS = 366 * 86_400
MAX_COUNT = 10**12
MAX_BYTES = 2**50

HeartbeatStyle = Literal["comment", "event", "cursor"]
LagPolicy = Literal["gap", "disconnect"]


@dataclass(frozen=True, slots=True)
class Unit:
    """What a number counts."""

    name: str


class Group(BaseModel):
    """Settings that belong together; the docstring of a subclass introduces its table in the reference."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def setting(default: Any, meaning: str, *, why: str = "", zero: str = "", hidden: bool = False) -> Any:
    """A setting's default and explanation.

    `zero` is what 0 means; a `hidden` value appears neither in errors nor in listings.
    """
    extra: JsonDict = {"why": why, "zero": zero, "hidden": hidden}
    if isinstance(default, (list, dict)):
        return Field(default_factory=default.copy, description=meaning, json_schema_extra=extra)
    return Field(default, description=meaning, json_schema_extra=extra)


def _not_a_boolean(value: object) -> object:
    # `heartbeat_seconds: true` would otherwise quietly be one second.
    if value is True or value is False:
        raise ValueError("must be a number")
    return value


_NUMBER = BeforeValidator(_not_a_boolean)

Seconds = Annotated[float, _NUMBER, Field(ge=0, le=YEAR_SECONDS), Unit("seconds")]
PositiveSeconds = Annotated[float, _NUMBER, Field(gt=0, le=YEAR_SECONDS), Unit("seconds")]
ShortSeconds = Annotated[float, _NUMBER, Field(ge=0, le=3600), Unit("seconds")]
PositiveShortSeconds = Annotated[float, _NUMBER, Field(gt=0, le=3600), Unit("seconds")]
# Redis counts milliseconds, and 0 of them are for ever; its whole answer is waited for at most 4 s.
ReplicasSeconds = Annotated[float, _NUMBER, Field(ge=0.001, le=3), Unit("seconds")]
LeewaySeconds = Annotated[float, _NUMBER, Field(ge=0, le=30), Unit("seconds")]
SliceMilliseconds = Annotated[float, _NUMBER, Field(gt=0, le=1000), Unit("milliseconds")]
RetryMilliseconds = Annotated[int, _NUMBER, Field(ge=1, le=9_999_999), Unit("milliseconds")]
Share = Annotated[float, _NUMBER, Field(ge=0, le=0.9), Unit("share")]
PerSecond = Annotated[float, _NUMBER, Field(ge=0, le=10**6), Unit("connections a second")]
Connections = Annotated[int, _NUMBER, Field(ge=0, le=10**8), Unit("connections")]
PositiveConnections = Annotated[int, _NUMBER, Field(ge=1, le=10**8), Unit("connections")]
Shards = Annotated[int, _NUMBER, Field(ge=1, le=64), Unit("shards")]
Replicas = Annotated[int, _NUMBER, Field(ge=0, le=16), Unit("replicas")]
Events = Annotated[int, _NUMBER, Field(ge=0, le=MAX_COUNT), Unit("events")]
PositiveEvents = Annotated[int, _NUMBER, Field(ge=1, le=MAX_COUNT), Unit("events")]
PositiveCount = Annotated[int, _NUMBER, Field(ge=1, le=MAX_COUNT), Unit("count")]
Bytes = Annotated[int, _NUMBER, Field(ge=0, le=MAX_BYTES), Unit("bytes")]
PositiveBytes = Annotated[int, _NUMBER, Field(ge=1, le=MAX_BYTES), Unit("bytes")]
SocketBytes = Annotated[int, _NUMBER, Field(ge=0, le=GIB), Unit("bytes")]
Port = Annotated[int, _NUMBER, Field(ge=0, le=65_535), Unit("TCP port")]


def _comma_separated(value: object) -> object:
    if isinstance(value, str):
        return [part for part in (piece.strip() for piece in value.split(",")) if part]
    return value


# In the environment and on the command line a list is one text; in YAML it may be either.
COMMA_SEPARATED = BeforeValidator(_comma_separated)
