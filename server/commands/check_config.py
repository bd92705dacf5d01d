"""`ringcast check-config`: every setting, its value and where it came from.

Owns the listing. Looks at the files that settings name, but opens no socket and starts nothing. Secrets print as `set`.
"""

from __future__ import annotations

import sys

import click

from config.display import show
from config.problems import ConfigError, Problem
from config.settings import Settings
from config.sources import Loaded, load
from server.keys import InvalidKey, public_key

EXIT_INVALID = 2


@click.command("check-config")
@click.option("--config", "config_file", metavar="FILE", help="YAML file with settings.")
def check_config(config_file: str | None) -> None:
    """Print every setting with its value and its origin; exit 2 if one cannot be used."""
    try:
        loaded = load(config_file, {})
        _check_key(loaded)
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(EXIT_INVALID)
    for line in listing(loaded):
        click.echo(line)


def listing(loaded: Loaded) -> list[str]:
    """One line for each setting, in columns."""
    rows = [(name, show(name, getattr(loaded.settings, name)), origin) for name, origin in loaded.origins.items()]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    # One long value must not push every origin out of sight.
    name_width, value_width = widths[0], min(widths[1], 40)
    lines = [f"{name:{name_width}}  {value:{value_width}}  {origin}" for name, value, origin in rows]
    return [*lines, *_notes(loaded.settings)]


def _notes(settings: Settings) -> list[str]:
    if not settings.development:
        return []
    return ["", "No key is configured: development mode. Anybody on this machine may publish and subscribe."]


def _check_key(loaded: Loaded) -> None:
    key, algorithm = loaded.settings.jwt_public_key, loaded.settings.jwt_algorithm
    if key is None:
        return
    try:
        public_key(key, algorithm)
    except InvalidKey as error:
        raise ConfigError([Problem("jwt_public_key", loaded.origins["jwt_public_key"], str(error))]) from None
