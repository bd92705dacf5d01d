"""`ringcast publish`: one event from the command line, or many from standard input.

Owns the options and what is printed: the ids on standard output, one a line; everything else on standard error.
"""

from __future__ import annotations

import io
import json
import sys
from typing import cast

import click

from server.commands.batches import Batch, InvalidLine, batches, with_defaults
from server.commands.options import channel_option, token_option, url_option
from server.commands.posting import Poster, PublishFailed
from server.commands.remote import EXIT_REFUSED, Remote, visible

JSON_TYPE = "application/json"
NDJSON_TYPE = "application/x-ndjson"
STANDARD_INPUT = "-"
MAX_ERRORS_SHOWN = 10


@click.command()
@click.argument("data")
@url_option
@channel_option
@click.option("--topic", "topics", multiple=True, metavar="TOPIC", help="Topic; repeatable, the first is the main one.")
@click.option("--type", "kind", metavar="TYPE", help="Event type.")
@click.option("--private", is_flag=True, help="Only for readers whose token grants one of the topics.")
@click.option("--id", "event_id", metavar="ID", help="The event's own id.")
@token_option
@click.option("--idempotency-key", metavar="KEY", help="Publish once, however often this command runs with it.")
@click.option("--tries", type=click.IntRange(1, 100), default=6, show_default=True, help="Attempts before giving up.")
def publish(
    data: str,
    remote: Remote,
    channel: str,
    topics: tuple[str, ...],
    kind: str | None,
    private: bool,
    event_id: str | None,
    token: str | None,
    idempotency_key: str | None,
    tries: int,
) -> None:
    """Publish DATA, and print the event's id.

    With - as DATA, publish the events on standard input: one JSON object a line, such as {"topic": "a", "data": "b"}.
    The options then fill in what a line does not say.
    """
    given = {"topics": list(topics), "type": kind, "private": private, "id": event_id}
    fields: dict[str, object] = {name: value for name, value in given.items() if value}
    poster = Poster(remote, channel, token, tries=tries, note=_note)
    try:
        if data != STANDARD_INPUT:
            body = json.dumps(fields | {"data": data}).encode()
            _print(poster.post(body, JSON_TYPE, idempotency_key))
            return
        if event_id is not None or idempotency_key is not None:
            raise click.UsageError(
                "--id and --idempotency-key are for one event; on standard input each line has its own"
            )
        _publish_lines(poster, fields)
    except PublishFailed as error:
        click.echo(f"not published: {error}", err=True)
        sys.exit(error.code)
    finally:
        poster.close()


def _publish_lines(poster: Poster, defaults: dict[str, object]) -> None:
    source = cast(io.BufferedReader, sys.stdin.buffer)
    # read1 gives what is there; read would wait for as much as was asked for.
    for batch in batches(lambda size: source.read1(size)):
        try:
            _print(poster.post(with_defaults(batch, defaults).body, NDJSON_TYPE))
        except InvalidLine as error:
            raise PublishFailed(f"{error}; nothing from line {batch.numbers[0]} on", EXIT_REFUSED) from None
        except PublishFailed as error:
            for line in line_errors(error.body, batch)[:MAX_ERRORS_SHOWN]:
                click.echo(line, err=True)
            raise PublishFailed(f"{error}; nothing from line {batch.numbers[0]} on", error.code) from None


def line_errors(body: bytes, batch: Batch) -> list[str]:
    """The server's complaints with the lines' numbers in the input instead of in the request."""
    try:
        errors = json.loads(body)["errors"]
        return [f"line {batch.numbers[error['line'] - 1]}: {_complaint(error)}" for error in errors]
    except (ValueError, TypeError, KeyError, IndexError):
        return []


def _complaint(error: dict[str, object]) -> str:
    return visible(": ".join(str(error[name]) for name in ("field", "reason") if error.get(name)))


def _print(ids: list[str]) -> None:
    click.echo("\n".join(map(visible, ids)))


def _note(text: str) -> None:
    click.echo(text, err=True)
