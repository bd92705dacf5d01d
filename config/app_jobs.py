"""Settings of the application `jobs` and of its worker. Owns their form."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import NoDecode

from config.bridges import check_subscription
from config.fields import (
    COMMA_SEPARATED,
    KIB,
    Group,
    PositiveBytes,
    PositiveCount,
    PositiveSeconds,
    setting,
)
from config.streams import _REDIS_URL

NO_REDIS = "none"
_SERVER = re.compile(r"https?://[^\s/@]+/?")
_TOPIC = re.compile(r"projects/[a-z][a-z0-9:.-]{4,62}[a-z0-9]/topics/[A-Za-z][\w.~+%-]{2,254}", re.ASCII)


def _check_redis(value: str) -> str:
    if value in ("relay", NO_REDIS):
        return value
    if "@" in value:
        raise ValueError("must not hold a password, since it is shown: set redis_username and redis_password")
    if not _REDIS_URL.fullmatch(value):
        raise ValueError(f"must be relay, {NO_REDIS} or redis://HOST:PORT/DATABASE")
    return value


def _check_servers(values: list[str]) -> list[str]:
    for value in values:
        if not _SERVER.fullmatch(value):
            raise ValueError(f"{value!r} is not an address such as http://127.0.0.1:8001")
    return [value.rstrip("/") for value in values]


def _check_topic(value: str) -> str:
    if value and not _TOPIC.fullmatch(value):
        raise ValueError("must be projects/PROJECT/topics/TOPIC")
    return value


def _check_subscription(value: str) -> str:
    if value:
        check_subscription(value)
    return value


class Jobs(Group):
    """The application `jobs`, and `ringcast job-worker`, which reads the same settings."""

    jobs_keep_seconds: PositiveSeconds = setting(
        86_400.0, "How long a finished job is kept, and how long one may wait of which nobody says anything."
    )
    jobs_per_minute: PositiveCount = setting(60, "Most jobs that one owner may start in a minute.")
    jobs_streams_per_minute: PositiveCount = setting(
        600,
        "Most streams that one owner may open in a minute on a node.",
        why="Each takes a look into the database. Who is refused comes back later by itself.",
    )
    jobs_abandoned_seconds: PositiveSeconds = setting(
        60.0, "A job whose worker says nothing for so long is given to another."
    )
    jobs_redis: Annotated[str, AfterValidator(_check_redis)] = setting(
        "relay",
        "Redis in which services publish on `job:ID:updates`: the `relay`'s, if that is one, a URL as there, or "
        f"`{NO_REDIS}`. User and password are the relay's.",
    )
    jobs_pubsub_subscription: Annotated[str, AfterValidator(_check_subscription)] = setting(
        "",
        "Google Pub/Sub's subscription by which services' updates come: `projects/PROJECT/subscriptions/NAME`, or NAME "
        "in `pubsub_project`; none if empty.",
    )
    jobs_pubsub_delivery: Literal["pull", "push"] = setting(
        "pull", "Whether nodes `pull` from it, or it is one that does `push` to `/bridges/pubsub/jobs_pubsub`."
    )
    jobs_simulated_seconds: PositiveSeconds = setting(
        8.0, "With `simulate`, in development mode and without a worker: how long a job is made to take."
    )
    jobs_servers: Annotated[list[str], NoDecode, COMMA_SEPARATED, AfterValidator(_check_servers)] = setting(
        [], "Where the worker finds the nodes, such as `http://127.0.0.1:8001`; `host` and `port` if there are none."
    )
    jobs_worker_token: SecretStr = setting(
        SecretStr(""), "The worker's token, one with `ringcast.operate`; none in development mode.", hidden=True
    )
    jobs_folder: str = setting("", "Folder whose files the worker may read for a job, by their names; none if empty.")
    jobs_ports: Annotated[list[Annotated[int, Field(ge=1, le=65_535)]], NoDecode, COMMA_SEPARATED] = setting(
        [80, 443], "Ports that the worker may ask for a job's source."
    )
    jobs_allow_private: bool = setting(
        False,
        "Let the worker ask addresses of its machine and of private networks.",
        why="Whoever starts jobs would see what only your machines may see.",
    )
    jobs_host_per_minute: PositiveCount = setting(
        60,
        "Most sources that the worker asks one address for in a minute.",
        why="Nobody is to use the worker against somebody else.",
    )
    jobs_source_bytes: PositiveBytes = setting(256 * KIB, "Most that the worker reads of one source.")
    jobs_concurrency: PositiveCount = setting(4, "Jobs that the worker has in hand at a time.")
    jobs_report_by: Literal["http", "redis", "pubsub"] = setting(
        "http",
        "How the worker reports: by `http` to a node, by `redis` (`PUBLISH job:ID:updates`), or by Google `pubsub`.",
        why="Only over HTTP is a report answered; of the others the last one is sent until a node knows of it.",
    )
    jobs_pubsub_topic: Annotated[str, AfterValidator(_check_topic)] = setting(
        "", "With `pubsub`: the topic, `projects/PROJECT/topics/TOPIC`. Needs the Python package google-cloud-pubsub."
    )
