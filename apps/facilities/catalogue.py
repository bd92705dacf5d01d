"""What comes with the package: insurance providers, procedures, and facilities for an empty database.

Owns the reading of `data/`. Must never know what is done with it. Read once, at start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import ujson

from apps.facilities.model import Facility

Rows = Sequence[Mapping[str, Any]]


def text_of(name: str) -> str:
    """A file of `data/`."""
    return (resources.files("apps.facilities") / "data" / name).read_text(encoding="utf-8")


def read_providers() -> Rows:
    """Insurance providers: id, name, countries (none: everywhere)."""
    rows: Rows = ujson.loads(text_of("insurance_providers.json"))
    return rows


def read_procedures() -> Rows:
    """Procedures: id, name, category."""
    rows: Rows = ujson.loads(text_of("procedures.json"))
    return rows


def read_facilities() -> list[Facility]:
    """The made-up ones (generate.py)."""
    rows = ujson.loads(text_of("facilities.json"))
    return [Facility(**row | {"insurance_providers": tuple(row["insurance_providers"])}) for row in rows]
