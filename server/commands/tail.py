"""`ringcast tail`: a channel's events on standard output as they come, and on a terminal a live line of counts.

Owns the options and the form of a line. What a stream sends is shown with its control characters spelled out: an
event's data must not be able to steer the reader's terminal.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence

import click

from server.commands.event_stream import Message
from server.commands.following import Ended, Follower, Subscription
from server.commands.meter import Meter
from server.commands.options import channel_option, token_option, url_option
from server.commands.remote import Remote, visible
from server.commands.screen import Screen

EXIT_INTERRUPTED = 130


def _cursor(_context: click.Context, _option: click.Parameter, value: str | None) -> str:
    if value is not None and not value.isprintable():
        raise click.BadParameter("must have no control characters")
    return value or ""


@click.command()
@url_option
@channel_option
@click.option("--topic", "topics", multiple=True, metavar="SELECTOR", help="*, a topic or a URI template; repeatable.")
@click.option("--type", "types", multiple=True, metavar="TYPE", help="Event type; repeatable.")
@click.option("--last", type=click.IntRange(1, 1000), metavar="N", help="Begin with the last N events.")
@click.option("--from", "cursor", metavar="CURSOR", callback=_cursor, help="Begin after this id, or with `earliest`.")
@token_option
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="End after N events.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line: id, type, data.")
def tail(
    remote: Remote,
    channel: str,
    topics: tuple[str, ...],
    types: tuple[str, ...],
    last: int | None,
    cursor: str,
    token: str | None,
    count: int | None,
    as_json: bool,
) -> None:
    """Print a channel's events as they come: id, type and data on one line."""
    meter = Meter(time.monotonic())
    began = time.monotonic()
    code = 0
    with Screen(meter) as screen:
        follower = Follower(Subscription(remote, channel, topics, types, last, token), cursor, meter, screen.note)
        try:
            _show(follower, screen, meter, count, as_json=as_json)
        except Ended as ended:
            screen.note(f"ended: {ended}")
            code = ended.code
        except KeyboardInterrupt:
            code = EXIT_INTERRUPTED
        meter.state = f"{time.monotonic() - began:.0f} s"
    sys.exit(code)


def _show(follower: Follower, screen: Screen, meter: Meter, count: int | None, *, as_json: bool) -> None:
    """Show messages until there are `count`. Raises Ended."""
    for messages in follower.follow():
        wanted = messages if count is None else messages[: count - meter.events]
        now = time.time()
        for message in wanted:
            meter.event(message.id if message.own_id else "", now)
        if wanted:
            screen.lines(as_lines(wanted, as_json=as_json))
        if meter.events == count:
            return


def as_lines(messages: Sequence[Message], *, as_json: bool) -> list[str]:
    """Each message as one line that is safe on a terminal."""
    if as_json:
        # In ASCII: JSON leaves some characters as they are that a terminal obeys.
        return [json.dumps({"id": message.id, "type": message.type, "data": message.data}) for message in messages]
    return [visible(f"{message.id}  {message.type}  {message.data}") for message in messages]
