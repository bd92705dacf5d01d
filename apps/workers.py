"""Workers: processes of applications that run beside the nodes and read the nodes' settings.

Owns how such a process begins (settings, logs), and where it finds the nodes. Must never know what a worker does.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence

import click

from config.problems import ConfigError
from config.settings import Settings
from config.sources import load
from server.logs import configure

EXIT_INVALID = 2


def settings_of(config_file: str | None, command_line: Mapping[str, object]) -> Settings:
    """The settings, and the logs as they want them. Ends the process, with the reason, if they are not valid."""
    try:
        settings = load(config_file, command_line).settings
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(EXIT_INVALID)
    configure(settings.log_format, settings.log_level)
    logging.getLogger("tornado").addHandler(logging.NullHandler())
    logging.getLogger("tornado").propagate = False
    return settings


def nodes_of(settings: Settings, named: Sequence[str]) -> Sequence[str]:
    """The nodes that are named, or the one that these settings would start."""
    return named or [f"http://{_connectable(settings.host)}:{settings.port}"]


def _connectable(host: str) -> str:
    """An address that everybody listens on is nobody's to connect to."""
    name = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)
    return f"[{name}]" if ":" in name and not name.startswith("[") else name
