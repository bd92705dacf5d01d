"""Google Pub/Sub's messages, whichever way they come: from which subscription, and what mappings see of them.

Owns the names of subscriptions, the envelope of a push, and what identifies a message. Pure: touches no socket and no
clock, and needs no library of Google's.

A message's source is the whole name of its subscription, in parts at the slashes. Its id is that name and Google's id,
which is the same whenever the message comes again: two subscriptions of one topic get the same ids, and what one brings
must not be taken for what the other has brought. Attributes whose names begin with `goog` are Google's own, so no
publisher can set those that are added here.
Sources: Pub/Sub's documentation of push subscriptions, and its API v1.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import AliasChoices, BaseModel, Field, ValidationError

from bridges.mapping import Mapping as MessageMapping
from bridges.mapping import Message, Unmappable

SEPARATOR = "/"
MESSAGE_ID, ORDERING_KEY, PUBLISH_TIME = "googMessageId", "googOrderingKey", "googPublishTime"
# Google takes messages of 10 MB, a third more in base64, and a hundred attributes. What is larger is none of its.
MAX_ENVELOPE_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Pusher:
    """Who may push: `email`, with a token for `audience`, by `issuer`, whose keys are at `jwks_url`."""

    audience: str
    email: str
    issuer: str
    jwks_url: str


BySubscription = Mapping[str, Sequence[MessageMapping]]


def by_subscription(mappings: Iterable[MessageMapping], project: str | None) -> BySubscription:
    """The mappings of each subscription, by its whole name. Raises ValueError for one without a project."""
    found: dict[str, list[MessageMapping]] = {}
    for mapping in mappings:
        name = mapping.source
        if SEPARATOR not in name:
            if project is None:
                raise ValueError(f"the subscription {name} needs its project, or pubsub_project")
            name = f"projects/{project}/subscriptions/{name}"
        found.setdefault(name, []).append(mapping)
    return found


def message_of(
    subscription: str,
    message_id: str,
    body: bytes,
    attributes: Mapping[str, str],
    *,
    ordering_key: str,
    publish_time: str,
) -> Message:
    """A message of Pub/Sub as mappings see it."""
    own = {MESSAGE_ID: message_id, ORDERING_KEY: ordering_key, PUBLISH_TIME: publish_time}
    seen = {**attributes, **{name: value for name, value in own.items() if value}}
    return Message(subscription, body, seen, f"{subscription}:{message_id}", SEPARATOR)


class _Pushed(BaseModel):
    data: str = ""
    attributes: dict[str, str] = {}
    message_id: Annotated[str, Field(min_length=1, validation_alias=AliasChoices("messageId", "message_id"))]
    publish_time: Annotated[str, Field(validation_alias=AliasChoices("publishTime", "publish_time"))] = ""
    ordering_key: Annotated[str, Field(validation_alias=AliasChoices("orderingKey", "ordering_key"))] = ""


class _Envelope(BaseModel):
    message: _Pushed
    subscription: str


def read_envelope(body: bytes) -> Message:
    """The message in what Pub/Sub pushes. Raises Unmappable for what Pub/Sub never sends."""
    try:
        envelope = _Envelope.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        if first["type"] == "json_invalid":
            raise Unmappable("body", "is not JSON") from None
        raise Unmappable(".".join(map(str, first["loc"][:2])), "is missing, or not as Pub/Sub sends it") from None
    pushed = envelope.message
    try:
        data = base64.b64decode(pushed.data, validate=True)
    except (binascii.Error, ValueError):
        raise Unmappable("message.data", "is not base64") from None
    return message_of(
        envelope.subscription,
        pushed.message_id,
        data,
        pushed.attributes,
        ordering_key=pushed.ordering_key,
        publish_time=pushed.publish_time,
    )
