"""Settings of the applications: which ones run, and the database that they share.

Owns their form; an application's own settings are in a group of its own (config/app_….py).
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, SecretStr
from pydantic_settings import NoDecode

from config.fields import COMMA_SEPARATED, Group, setting

APPLICATIONS = ("facilities", "prices", "monitors", "jobs", "companies")
NONE = "none"


def _check_applications(values: list[str]) -> list[str]:
    if values == [NONE]:
        return []
    for value in values:
        if value not in APPLICATIONS:
            raise ValueError(f"{value!r} is none of {', '.join(APPLICATIONS)}")
    return list(dict.fromkeys(values))


def _check_database(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if not text.startswith(("postgresql://", "postgres://")) and not text.removeprefix("sqlite:").strip():
        raise ValueError("must be sqlite:PATH or postgresql://USER:PASSWORD@HOST:PORT/NAME")
    if not text.startswith(("sqlite:", "postgresql://", "postgres://")):
        raise ValueError("must be sqlite:PATH or postgresql://USER:PASSWORD@HOST:PORT/NAME")
    return value


Applications_ = Annotated[list[str], NoDecode, COMMA_SEPARATED, AfterValidator(_check_applications)]
DatabaseUrl = Annotated[SecretStr, AfterValidator(_check_database)]


class Applications(Group):
    """Whole systems that run on the streams, each with endpoints, a channel and a page of its own."""

    apps: Applications_ = setting(list(APPLICATIONS), f"Those that run; `{NONE}` for none of them.")
    database: DatabaseUrl = setting(
        SecretStr("sqlite:ringcast.db"),
        "Where applications keep their data: `sqlite:PATH`, or `postgresql://USER:PASSWORD@HOST:PORT/NAME`.",
        why="Several nodes need one database: SQLite is for a single node.",
        hidden=True,
    )
    simulate: bool = setting(
        True, "Let applications without a source make live data of their own, marked as simulated."
    )
