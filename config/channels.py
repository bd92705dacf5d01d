"""Channels: what one channel may have different from all others.

Owns the overrides and their resolution into a whole policy. Must never know of a channel's log or readers. An override
that is None means "as the setting of the same name says".
"""

from __future__ import annotations

import json
import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, field_validator
from pydantic_settings import NoDecode

from config.fields import (
    Bytes,
    Events,
    Group,
    HeartbeatStyle,
    LagPolicy,
    PositiveBytes,
    PositiveCount,
    PositiveEvents,
    Seconds,
    Shards,
    ShortSeconds,
    setting,
)
from config.names import CHANNEL_NAME

# EventSource fires the first two itself; the others are the server's own events with another meaning.
_TAKEN_EVENTS = frozenset({"open", "error", "message", "gap", "heartbeat"})
_EVENT_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)


def _check_hello(value: str) -> str:
    if not _EVENT_NAME.fullmatch(value):
        raise ValueError("must be 1 to 64 characters of A-Z a-z 0-9 _ . -")
    if value in _TAKEN_EVENTS:
        raise ValueError(f"{value!r} is reserved")
    return value


HelloEvent = Annotated[str, AfterValidator(_check_hello)]


class ChannelPolicySettings(Group):
    """A channel's whole policy: the settings of the same names with the channel's own overrides."""

    heartbeat_seconds: ShortSeconds
    heartbeat_style: HeartbeatStyle
    lag_policy: LagPolicy
    lag_events: PositiveEvents
    lag_bytes: PositiveBytes
    ring_events: PositiveEvents
    ring_bytes: PositiveBytes
    ring_seconds: Seconds
    retain_events: Events
    retain_bytes: Bytes
    retain_seconds: Seconds
    idle_seconds: Seconds
    max_age_seconds: Seconds
    anonymous: bool
    shards: Shards = Field(
        1,
        description="With Redis: streams that the channel is split into by topic; a node follows those it has readers "
        "for. Count and bytes are bounded for each at its part.",
    )
    hello_event: HelloEvent = Field("hello", description="Name of the first event of every stream.")


class ChannelSettings(Group):
    """Overrides of one channel."""

    heartbeat_seconds: ShortSeconds | None = None
    heartbeat_style: HeartbeatStyle | None = None
    lag_policy: LagPolicy | None = None
    lag_events: PositiveEvents | None = None
    lag_bytes: PositiveBytes | None = None
    ring_events: PositiveEvents | None = None
    ring_bytes: PositiveBytes | None = None
    ring_seconds: Seconds | None = None
    retain_events: Events | None = None
    retain_bytes: Bytes | None = None
    retain_seconds: Seconds | None = None
    idle_seconds: Seconds | None = None
    max_age_seconds: Seconds | None = None
    anonymous: bool | None = None
    shards: Shards | None = None
    hello_event: HelloEvent | None = None


def _from_json(value: object) -> object:
    if isinstance(value, str):
        try:
            return json.loads(value)
        except ValueError as error:
            raise ValueError(f'must be JSON such as {{"prices": {{"lag_events": 100}}}}: {error}') from None
    return value


class Channels(Group):
    """Which channels there are, and what is different in some of them."""

    open_channels: bool = setting(True, "Let a channel come into being with its first authorised publish or subscribe.")
    max_channels: PositiveCount = setting(
        256, "Most channels, `main` and `host` included.", why="Each has a ring of its own."
    )
    channels: Annotated[dict[str, ChannelSettings], NoDecode, BeforeValidator(_from_json)] = setting(
        {}, "Channels that are there from the start, by name, with their overrides (below). JSON in the environment."
    )

    @field_validator("channels")
    @classmethod
    def _check_names(cls, values: dict[str, ChannelSettings]) -> dict[str, ChannelSettings]:
        for name in values:
            if not CHANNEL_NAME.fullmatch(name):
                raise ValueError(f"{name!r} is not a channel's name: a lower-case letter, then up to 63 of a-z 0-9 _ -")
        return values
