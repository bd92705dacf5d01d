"""Logs: one structured line per thing that matters, none per event.

Owns the set-up of structlog and the neutralising of what strangers sent. Must never be given a token. JSON lines in
production, readable ones on a terminal; in both, control characters are escaped and long values cut, so that no request
can forge a line or drive a terminal.
"""

from __future__ import annotations

import re
import sys
from typing import Any, TextIO, cast

import structlog
import ujson

MAX_VALUE_CHARACTERS = 256
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200b-\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def get_logger(name: str) -> structlog.typing.FilteringBoundLogger:
    """A logger whose lines carry `part=name`."""
    return cast(structlog.typing.FilteringBoundLogger, structlog.get_logger(part=name))


def neutral(text: str) -> str:
    """`text` cut to 256 characters, with control characters as \\xNN or \\uNNNN."""
    cut = text if len(text) <= MAX_VALUE_CHARACTERS else text[:MAX_VALUE_CHARACTERS] + "…"
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], cut)


def _neutralise(_: Any, __: str, fields: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return {
        key: neutral(value) if isinstance(value, str) and key != "exception" else value for key, value in fields.items()
    }


def _json_line(_: Any, __: str, fields: structlog.typing.EventDict) -> str:
    return ujson.dumps(fields, default=str, escape_forward_slashes=False)


class _Lines:
    """Writes lines. One that can't be written (a full disk, a closed pipe) is lost; the work it speaks of goes on."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def msg(self, line: str) -> None:
        try:
            self._out.write(line + "\n")
            self._out.flush()
        except (OSError, ValueError):
            pass

    debug = info = warning = error = critical = exception = msg


def configure(log_format: str, level: str, stream: TextIO | None = None) -> None:
    """Set logging up for the process. `log_format`: json, console, or auto (console on a terminal)."""
    out = stream or sys.stderr
    plain = log_format == "console" or (log_format == "auto" and out.isatty())
    render: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer(colors=out.isatty())]
        if plain
        else [structlog.processors.format_exc_info, _json_line]
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _neutralise,
            *render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: _Lines(out),
        cache_logger_on_first_use=False,
    )
