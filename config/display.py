"""Display: a setting as text for people.

Owns the rule that secrets never print; every listing goes through here.
"""

from __future__ import annotations

import json

from pydantic import BaseModel, SecretStr

from config.problems import redact
from config.settings import Settings
from config.sources import is_hidden

SET = "set"
NOT_SET = "not set"


def show(name: str, value: object) -> str:
    """`value` of the setting `name`; a hidden one only says whether it is set."""
    if value is None:
        return NOT_SET
    if is_hidden(name) or isinstance(value, SecretStr):
        return SET
    return redact(plain(value))


def plain(value: object) -> str:
    """A value in the form in which the environment takes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ",".join(map(str, value)) or "none"
    if isinstance(value, dict):
        return json.dumps({name: _overrides(item) for name, item in value.items()}) if value else "none"
    return f"{value:g}" if isinstance(value, float) and abs(value) < 1e6 else str(value)


def _overrides(item: object) -> object:
    return item.model_dump(exclude_none=True) if isinstance(item, BaseModel) else item


def default(name: str) -> object:
    """A setting's default value."""
    return Settings.model_fields[name].get_default(call_default_factory=True)
