"""Settings of the application `monitors` and of its worker. Owns their form."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, field_validator
from pydantic_settings import NoDecode

from config.addresses import check_networks
from config.fields import (
    COMMA_SEPARATED,
    Connections,
    Group,
    PerSecond,
    PositiveConnections,
    PositiveCount,
    PositiveSeconds,
    setting,
)

MIN_SECRET_CHARACTERS = 16


class Monitors(Group):
    """The application `monitors`, and `ringcast monitor-worker`, which reads the same settings."""

    monitors_registration: bool = setting(True, "Let anybody register a tenant.")
    monitors_logins_per_minute: PositiveCount = setting(
        10,
        "Most logins and registrations of one address in a minute; with one e-mail address thrice as many logins.",
        why="Passwords can be guessed, and each guess costs a tenth of a second of a core.",
    )
    monitors_password_rounds: PositiveCount = setting(
        5,
        "Work of a new password's hash, in fiftieths of a second of a core.",
        why="What is cheap for the server is cheap for who has stolen the hashes.",
    )
    monitors_token_seconds: PositiveSeconds = setting(3_600.0, "How long a token of a login holds.")
    monitors_max_streams: Connections = setting(200, "Most streams of one tenant, over all nodes.", zero="no limit")
    monitors_streams_per_second: PerSecond = setting(
        10.0, "Rate of new streams of one tenant on a node.", zero="no limit"
    )
    monitors_streams_burst: PositiveConnections = setting(50, "New streams that may exceed that rate at once.")
    monitors_per_tenant: PositiveCount = setting(100, "Most monitors, and most alert rules, of one tenant.")
    monitors_min_interval_seconds: PositiveCount = setting(10, "Shortest time between two checks of a monitor.")
    monitors_host_per_minute: PositiveCount = setting(
        60,
        "Most checks of one host that a tenant may have in a minute.",
        why="Nobody is to use the worker against somebody else.",
    )
    monitors_ports: Annotated[list[Annotated[int, Field(ge=1, le=65_535)]], NoDecode, COMMA_SEPARATED] = setting(
        [80, 443, 8000, 8080, 8443], "Ports that a monitor may ask."
    )
    monitors_allow_private: bool = setting(
        False,
        "Let monitors ask addresses of this machine, public ones too, and of private networks.",
        why="Where strangers may register they would see what only your machines may see.",
    )
    monitors_keep_checks: PositiveCount = setting(1_000, "How many checks of each monitor are kept.")
    monitors_keep_incident_seconds: PositiveSeconds = setting(90 * 86_400.0, "How long a resolved incident is kept.")
    monitors_secret: SecretStr | None = setting(
        None,
        "What the worker shows at `/internal/broadcast`. Without it that is closed, but in development mode.",
        why=f"At least {MIN_SECRET_CHARACTERS} characters.",
        hidden=True,
    )
    monitors_inside: Annotated[list[str], NoDecode, COMMA_SEPARATED, AfterValidator(check_networks)] = setting(
        [], "Networks (CIDR) beside this machine's own whose requests to `/internal/broadcast` are taken."
    )
    monitors_servers: Annotated[list[str], NoDecode, COMMA_SEPARATED] = setting(
        [], "Where the worker finds the nodes, such as `http://127.0.0.1:8001`; `host` and `port` if there are none."
    )
    monitors_broadcast_seconds: PositiveSeconds = setting(5.0, "Longest wait of the worker for a broadcast.")
    monitors_keep_results: PositiveCount = setting(
        10_000, "Results that the worker keeps while it can't store or send them; then the oldest go."
    )
    monitors_concurrency: PositiveCount = setting(50, "Checks that the worker makes at a time.")
    monitors_simulated_seconds: PositiveSeconds = setting(1.0, "Time between two simulated checks.")

    @field_validator("monitors_secret")
    @classmethod
    def _check_secret(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < MIN_SECRET_CHARACTERS:
            raise ValueError(f"must be at least {MIN_SECRET_CHARACTERS} characters")
        return value

    @field_validator("monitors_servers")
    @classmethod
    def _check_servers(cls, values: list[str]) -> list[str]:
        for value in values:
            parts = urlsplit(value)
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or "@" in value:
                raise ValueError(f"{value!r} is not an address such as http://127.0.0.1:8001")
        return [value.rstrip("/") for value in values]
