"""Databases for tests: each of the two kinds, each empty."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from tests.harness.postgres import PostgresServer

DATABASES = ("sqlite", "postgresql")


def new_database(request: pytest.FixtureRequest, kind: str, folder: Path) -> str:
    """The setting of an empty database of this kind."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    if kind == "sqlite":
        return f"sqlite:{folder}/{name}.db"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.url(name)
