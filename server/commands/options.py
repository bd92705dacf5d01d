"""Options that several client commands share, with the check of each.

Owns their names and the variables behind them.
"""

from __future__ import annotations

import click

from config.names import CHANNEL_NAME
from config.problems import redact
from server.commands.remote import InvalidAddress, Remote

DEFAULT_URL = "http://127.0.0.1:8888"


def _remote(_context: click.Context, _option: click.Parameter, value: str) -> Remote:
    try:
        return Remote.parse(value)
    except InvalidAddress as error:
        raise click.BadParameter(f"{redact(value)!r} {error}") from None


def _channel(_context: click.Context, _option: click.Parameter, value: str) -> str:
    if not CHANNEL_NAME.fullmatch(value):
        raise click.BadParameter("must be a lower-case letter, then up to 63 of a-z 0-9 _ -")
    return value


def _token(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    # A token pasted with its line break would make a second header line; its text is never quoted back.
    if value is not None and not (value.isascii() and value.isprintable() and " " not in value):
        raise click.BadParameter("must be one word of ASCII characters")
    return value or None


url_option = click.option(
    "--url",
    "remote",
    envvar="RINGCAST_URL",
    default=DEFAULT_URL,
    show_default=True,
    callback=_remote,
    help="Where the server is (also RINGCAST_URL).",
)
channel_option = click.option("--channel", default="main", show_default=True, callback=_channel, help="The channel.")
token_option = click.option("--token", envvar="RINGCAST_TOKEN", callback=_token, help="Token (better: RINGCAST_TOKEN).")
