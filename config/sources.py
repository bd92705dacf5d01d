"""Sources: where settings come from, joined in order: defaults < YAML file < environment < command line.

Owns the order and, for each setting, the memory of where its value came from. A later source replaces a value whole:
`RINGCAST_CHANNELS` replaces all channels of the file. An empty variable or a name without a value in the file counts as
not given. Unknown names are errors: a mistyped limit that is silently ignored is found out when it is needed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import EnvSettingsSource

from config import yaml_file
from config.channels import ChannelSettings
from config.checks import conflicts
from config.problems import ConfigError, Problem, quote, suggestion
from config.settings import ENVIRONMENT_PREFIX, Settings

DEFAULT = "default"
COMMAND_LINE = "command line"
# Read by the commands that talk to a server, wherever that is; not settings of this one.
CLIENT_VARIABLES = frozenset({f"{ENVIRONMENT_PREFIX}TOKEN", f"{ENVIRONMENT_PREFIX}URL"})


@dataclass(frozen=True, slots=True)
class Loaded:
    """Valid settings, and for each name where its value came from."""

    settings: Settings
    origins: Mapping[str, str]


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return ENVIRONMENT_PREFIX + name.upper()


def load(config_file: str | os.PathLike[str] | None, command_line: Mapping[str, object]) -> Loaded:
    """Join all sources. Entries of `command_line` that are None count as not given. Raises ConfigError."""
    environment = EnvSettingsSource(Settings)()
    given = {name: value for name, value in command_line.items() if value is not None}
    if config_file is not None:
        given["config"] = os.fspath(config_file)
    layers: list[tuple[str, dict[str, Any]]] = [("environment", environment), (COMMAND_LINE, given)]
    path = given.get("config", environment.get("config"))
    if path is not None:
        layers.insert(0, (f"file {path}", yaml_file.read(Path(str(path)))))
    problems = [*_unknown_names(layers), *_unknown_variables()]
    values, origins = _join(layers)
    try:
        settings = Settings(**values)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False)
        raise ConfigError([*problems, *(_problem(detail, origins) for detail in details)]) from None
    problems += [Problem(name, origins[name], reason) for name, reason in conflicts(settings)]
    if problems:
        raise ConfigError(problems)
    return Loaded(settings, origins)


def _join(layers: list[tuple[str, dict[str, Any]]]) -> tuple[dict[str, Any], dict[str, str]]:
    values: dict[str, Any] = {}
    origins = dict.fromkeys(Settings.model_fields, DEFAULT)
    for source, layer in layers:
        for name in layer.keys() & Settings.model_fields.keys():
            values[name] = layer[name]
            origins[name] = f"environment {variable(name)}" if source == "environment" else source
    return values, origins


def _unknown_names(layers: list[tuple[str, dict[str, Any]]]) -> Iterator[Problem]:
    for source, layer in layers:
        for name in layer:
            if name not in Settings.model_fields:
                yield Problem(
                    quote(name)[1:-1], source, f"there is no such setting{suggestion(name, Settings.model_fields)}"
                )
            elif name == "config" and source.startswith("file "):
                yield Problem(name, source, "cannot be set in the file itself")


def _unknown_variables() -> Iterator[Problem]:
    known = {variable(name) for name in Settings.model_fields} | CLIENT_VARIABLES
    for name in sorted(os.environ):
        if name.upper().startswith(ENVIRONMENT_PREFIX) and name.upper() not in known:
            yield Problem(name, "environment", f"there is no such setting{suggestion(name.upper(), known)}")


def _problem(detail: ErrorDetails, origins: Mapping[str, str]) -> Problem:
    """Pydantic's finding in our words."""
    name = str(detail["loc"][0])
    path = ".".join(str(part) for part in detail["loc"] if isinstance(part, str))
    return Problem(path, origins[name], _reason(detail, hidden=is_hidden(name)))


def _reason(detail: ErrorDetails, *, hidden: bool) -> str:
    if detail["type"] == "extra_forbidden":
        return (
            f"there is no such setting for a channel{suggestion(str(detail['loc'][-1]), ChannelSettings.model_fields)}"
        )
    text = detail["msg"].removeprefix("Value error, ").replace("Input should", "must", 1).split(", unable to parse")[0]
    value = detail["input"]
    return text if hidden or not isinstance(value, (str, int, float)) else f"{text}, not {quote(value)}"


def is_hidden(name: str) -> bool:
    """True if a setting's value must not be shown."""
    extra = Settings.model_fields[name].json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("hidden"))
