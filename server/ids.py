"""Ids: `EPOCH-POSITION`, the one form of a cursor that the server makes.

Owns the text form. A position is a time in microseconds since 1970 (the relay makes it strictly increase); fixed-width
hexadecimal sorts as text until the year 2112. Must never know of channels or readers. Cost: one string formatting per
event.

Why time and not a counter: a counter tells a reader how many events it may not read went by (contract, Isolation).
"""

from __future__ import annotations

import re
import secrets

EARLIEST = "earliest"
EPOCH_LENGTH = 6
_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
_FORM = re.compile(r"([0-9a-z]{6})-([0-9a-f]{13})", re.ASCII)


def new_epoch() -> str:
    """Six random characters that name a log from its creation on."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(EPOCH_LENGTH))


def format_id(epoch: str, position: int) -> str:
    """The id of `position` in the log named `epoch`."""
    return f"{epoch}-{position:013x}"


def parse_id(text: str) -> tuple[str, int] | None:
    """(epoch, position), or None if `text` is not of this form."""
    found = _FORM.fullmatch(text)
    return (found[1], int(found[2], 16)) if found else None
