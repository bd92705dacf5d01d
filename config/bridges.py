"""Settings of the bridges: where messages of other systems come from, and what they become.

Owns their form, and what is wrong with one. The bridges themselves are in bridges/; what a mapping's templates may say
is in config/templates.py. A list that does not hold is an error that names the bridge and the mapping.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import NoDecode

from config.fields import Group, PositiveCount, setting
from config.names import CHANNEL_NAME
from config.problems import suggestion
from config.templates import MAX_DEPTH, parse_template

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}", re.ASCII)
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", re.ASCII)
_NATS_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_WORD = r"(?:\*|[^\s.*>]+)"
_SUBJECT = re.compile(rf">|{_WORD}(?:\.{_WORD})*(?:\.>)?")
_PRINTED = re.compile(r"[^\s\x00-\x1f\x7f]{1,512}")
_PROJECT = r"[a-z0-9][a-z0-9.:-]{0,127}"
_SUBSCRIPTION_NAME = r"[A-Za-z][A-Za-z0-9._~+%-]{2,254}"
_SUBSCRIPTION = re.compile(rf"(?:projects/{_PROJECT}/subscriptions/)?{_SUBSCRIPTION_NAME}", re.ASCII)
_REDIS_SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel")
MAX_MAPPINGS = 100
PUBSUB_MAX_WAITING = 100


def _check_template(value: str) -> str:
    parse_template(value)
    return value


def _check_source(value: str) -> str:
    if not _PRINTED.fullmatch(value):
        raise ValueError("must be 1 to 512 characters without spaces")
    return value


def _check_channel(value: str) -> str:
    if "{" not in value and not CHANNEL_NAME.fullmatch(value):
        raise ValueError(f"{value!r} is not a channel's name: a lower-case letter, then up to 63 of a-z 0-9 _ -")
    return _check_template(value)


def _check_function(value: str) -> str:
    if not _FUNCTION.fullmatch(value):
        raise ValueError("must be package.module:name")
    return value


def _check_data(value: object, depth: int = 0) -> object:
    if depth > MAX_DEPTH:
        raise ValueError(f"is nested more than {MAX_DEPTH} deep")
    if isinstance(value, str):
        return _check_template(value)
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_data(item, depth + 1)
    return value


def _check_nats_name(value: str) -> str:
    if not _NATS_NAME.fullmatch(value):
        raise ValueError("must be 1 to 64 of A-Z a-z 0-9 _ -")
    return value


def _check_nats_url(value: SecretStr) -> SecretStr:
    for server in value.get_secret_value().split(","):
        parts = urlsplit(server.strip())
        try:
            valid = parts.scheme in ("nats", "tls") and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            valid = False
        if not valid:
            raise ValueError("must be nats://HOST:PORT or tls://HOST:PORT, or several with commas")
    return value


def _check_redis_url(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if not text.startswith(tuple(f"{scheme}://" for scheme in _REDIS_SCHEMES)):
        raise ValueError("must be redis://HOST:PORT/DATABASE, also rediss:, unix: or +sentinel (a cluster: one node)")
    return value


def _check_project(value: str) -> str:
    if not re.fullmatch(_PROJECT, value):
        raise ValueError("must be a project's id")
    return value


def _check_pubsub_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.username:
        raise ValueError("must be https://HOST, or http://HOST:PORT for an emulator")
    return value


def check_subscription(value: str) -> None:
    """Raise ValueError unless this names a subscription of Pub/Sub."""
    if not _SUBSCRIPTION.fullmatch(value):
        raise ValueError(f"{value!r} is not a subscription: NAME, or projects/PROJECT/subscriptions/NAME")


def check_subject(value: str) -> str:
    """Raise ValueError unless this is a NATS subject, wildcards allowed."""
    if not _SUBJECT.fullmatch(value):
        raise ValueError(f"{value!r} is not a NATS subject: words with dots, `*` for a word, `>` for the rest")
    return value


Text = Annotated[str, AfterValidator(_check_template)]
Channel = Annotated[str, AfterValidator(_check_channel)]
Source = Annotated[str, AfterValidator(_check_source)]
Function = Annotated[str, AfterValidator(_check_function)]
Data = Annotated[Any, AfterValidator(_check_data)]
NatsName = Annotated[str, AfterValidator(_check_nats_name)]
NatsUrl = Annotated[SecretStr, AfterValidator(_check_nats_url)]
RedisUrl = Annotated[SecretStr, AfterValidator(_check_redis_url)]
Project = Annotated[str, AfterValidator(_check_project)]
PubSubUrl = Annotated[str, AfterValidator(_check_pubsub_url)]
Subject = Annotated[str, AfterValidator(_check_source), AfterValidator(check_subject)]


class MappingSettings(Group):
    """What the messages of one source become: by templates, or by a function that returns publications."""

    source: Source
    channel: Channel = ""
    topics: Annotated[list[Text], Field(max_length=100, default_factory=list)]
    type: Text | None = None
    data: Data = None
    private: bool = False
    key: Text | None = None
    location: tuple[Text, Text] | None = None
    function: Function | None = None


class BridgeSettings(Group):
    """One bridge. `kind` says which."""

    kind: str
    name: str
    mappings: list[MappingSettings]

    @field_validator("name")
    @classmethod
    def _check_name(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            raise ValueError("must be a lower-case letter, then up to 31 of a-z 0-9 _ -")
        return value

    @field_validator("mappings")
    @classmethod
    def _check_mappings(cls, values: list[MappingSettings]) -> list[MappingSettings]:
        if not 1 <= len(values) <= MAX_MAPPINGS:
            raise ValueError(f"must be 1 to {MAX_MAPPINGS}")
        for number, mapping in enumerate(values, 1):
            plain = mapping.model_fields_set - {"source", "function"}
            if mapping.function is not None and plain:
                raise ValueError(f"mapping {number}: beside function there is no {min(plain)}")
            if mapping.function is None and not (mapping.channel and mapping.topics):
                raise ValueError(f"mapping {number}: needs a channel and topics, or a function")
            cls.check_source(mapping.source)
        return values

    @classmethod
    def check_source(cls, value: str) -> None:
        """Raise ValueError unless messages of this kind may come from there."""


class NatsSubjects(BridgeSettings):
    """Core NATS: subjects, through a queue group that all nodes share."""

    kind: Literal["nats"] = "nats"
    url: NatsUrl | None = None
    queue: NatsName | None = None
    max_waiting: PositiveCount = 10_000

    @classmethod
    def check_source(cls, value: str) -> None:
        check_subject(value)


class NatsStream(BridgeSettings):
    """JetStream: a durable consumer. With `create`, the stream of `subjects` and the consumer are made if need be."""

    kind: Literal["jetstream"] = "jetstream"
    url: NatsUrl | None = None
    stream: NatsName
    durable: NatsName = "ringcast"
    domain: NatsName | None = None
    create: bool = False
    subjects: Annotated[list[Subject], Field(default_factory=list)]
    ordered: bool = True

    @classmethod
    def check_source(cls, value: str) -> None:
        check_subject(value)


class RedisPubSub(BridgeSettings):
    """Redis pub/sub: patterns, read by one node at a time."""

    kind: Literal["redis"] = "redis"
    url: RedisUrl | None = None
    username: str | None = None
    password: SecretStr | None = None
    max_waiting: PositiveCount = 10_000


class PubSub(BridgeSettings):
    """Google Pub/Sub: subscriptions that are pulled from, or that push to this server."""

    kind: Literal["pubsub"] = "pubsub"
    delivery: Literal["pull", "push"] = "pull"
    audience: str | None = None
    email: str | None = None
    dead_letter: bool = False
    max_waiting: Annotated[int, Field(ge=1, le=1_000)] = PUBSUB_MAX_WAITING

    @classmethod
    def check_source(cls, value: str) -> None:
        check_subscription(value)


KINDS: dict[str, type[BridgeSettings]] = {
    "nats": NatsSubjects,
    "jetstream": NatsStream,
    "redis": RedisPubSub,
    "pubsub": PubSub,
}


def _read_bridges(value: object) -> object:
    """From JSON or YAML, with errors that name the bridge."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise ValueError(f"must be JSON, a list of bridges: {error}") from None
    if not isinstance(value, list):
        raise ValueError("must be a list of bridges")
    return [_read_bridge(item, number) for number, item in enumerate(value, 1)]


def _read_bridge(item: object, number: int) -> BridgeSettings:
    if isinstance(item, BridgeSettings):
        return item
    if not isinstance(item, dict):
        raise ValueError(f"bridge {number}: must be a mapping with kind, name and mappings")
    name = item.get("name") if isinstance(item.get("name"), str) else number
    kind = KINDS.get(str(item.get("kind")))
    if kind is None:
        raise ValueError(f"bridge {name}: kind must be one of {', '.join(KINDS)}")
    try:
        return kind.model_validate(item)
    except ValidationError as error:
        raise ValueError(f"bridge {name}: {_first_problem(error, kind)}") from None


def _first_problem(error: ValidationError, kind: type[BridgeSettings]) -> str:
    detail = error.errors(include_url=False, include_context=False, include_input=False)[0]
    # ("mappings", 0, "topics", 1) is mapping 1, topic 2.
    steps = detail["loc"]
    words = [
        f"{str(steps[number - 1]).removesuffix('s')} {step + 1}" if isinstance(step, int) else step
        for number, step in enumerate(steps)
        if isinstance(step, int) or not isinstance((*steps, "")[number + 1], int)
    ]
    place = ", ".join(words)
    if detail["type"] == "extra_forbidden":
        known = MappingSettings.model_fields if len(words) > 1 else kind.model_fields
        return f"{place}: there is no such setting{suggestion(words[-1], known)}"
    text = detail["msg"].removeprefix("Value error, ").replace("Input should", "must", 1)
    return f"{place}: {'is missing' if detail['type'] == 'missing' else text}"


def _missing(bridge: BridgeSettings, others: dict[str, Any]) -> str:
    """What a bridge needs and has neither itself nor from the other settings."""
    if isinstance(bridge, PubSub):
        return _missing_of_pubsub(bridge, others)
    missing = _missing_url(bridge, others)
    return f"a url, {missing}" if missing else ""


def _missing_of_pubsub(bridge: PubSub, others: dict[str, Any]) -> str:
    if not others.get("pubsub_project") and any("/" not in mapping.source for mapping in bridge.mappings):
        return "pubsub_project, or a subscription's whole name, projects/PROJECT/subscriptions/NAME"
    for name in ("audience", "email") if bridge.delivery == "push" else ():
        if not (getattr(bridge, name) or others.get(f"pubsub_{name}")):
            return f"an {name}, or pubsub_{name}: without, anybody could push"
    return ""


def _missing_url(bridge: BridgeSettings, others: dict[str, Any]) -> str:
    """What would do beside a url of its own; nothing if there is either."""
    if isinstance(bridge, (NatsSubjects, NatsStream)):
        return "" if bridge.url or others.get("nats_url") else "or nats_url"
    if isinstance(bridge, RedisPubSub) and not bridge.url:
        relay = str(others.get("relay"))
        if "+cluster" in relay:
            return "of one node of the cluster: what is published reaches all of them"
        return "unless the relay is Redis" if relay.startswith(("memory:", "sqlite:")) else ""
    return ""


class Bridges(Group):
    """Where messages of other systems come in: NATS, JetStream, Redis pub/sub, Google Pub/Sub. See docs/bridges.md."""

    nats_url: NatsUrl | None = setting(
        None,
        "Where NATS is: `nats://HOST:PORT` or `tls://HOST:PORT`, several with commas; a user and password, or a token, "
        "may stand before the host.",
        hidden=True,
    )
    nats_queue: NatsName = setting(
        "ringcast", "The queue group that all nodes share.", why="So a message enters once, whichever node gets it."
    )
    nats_credentials: str | None = setting(None, "Path of a credentials file (`.creds`) of NATS.")
    nats_ca_file: str | None = setting(None, "Path of the certificates (PEM) that NATS's own is checked against.")
    nats_certificate_file: str | None = setting(None, "Path of a client certificate (PEM) with its key, for NATS.")
    pubsub_project: Project | None = setting(
        None, "The Google Cloud project of subscriptions that are named without one."
    )
    pubsub_url: PubSubUrl = setting(
        "https://pubsub.googleapis.com",
        "Where Pub/Sub is: also an endpoint of one region, or `http://HOST:PORT`, an emulator.",
        why="Over plain HTTP no credentials are sent.",
    )
    pubsub_credentials: str | None = setting(
        None, "Path of a service account's key file (JSON), for pulling; without it, Application Default Credentials."
    )
    pubsub_audience: str | None = setting(
        None,
        "The audience that tokens of pushes must be for: what the subscription says, or the URL that it pushes to.",
        why="A token for another service must not open this one.",
    )
    pubsub_email: str | None = setting(
        None,
        "The service account that pushes must come from.",
        why="Google signs tokens for everybody's service accounts.",
    )
    pubsub_issuer: str = setting("https://accounts.google.com", "The issuer that tokens of pushes must be from.")
    pubsub_jwks_url: str = setting(
        "https://www.googleapis.com/oauth2/v3/certs",
        "Where that issuer's keys are: `https://…`, `file://…`, or `http://` on loopback.",
    )
    bridges: Annotated[list[BridgeSettings], NoDecode, BeforeValidator(_read_bridges)] = setting(
        [], "The bridges, each with its mappings (docs/bridges.md). JSON in the environment.", hidden=True
    )

    @field_validator("bridges")
    @classmethod
    def _check_bridges(cls, values: list[BridgeSettings], info: ValidationInfo) -> list[BridgeSettings]:
        names = [bridge.name for bridge in values]
        for bridge in values:
            if names.count(bridge.name) > 1:
                raise ValueError(f"bridge {bridge.name}: the name is there twice")
            missing = _missing(bridge, info.data)
            if missing:
                raise ValueError(f"bridge {bridge.name}: needs {missing}")
        return values
