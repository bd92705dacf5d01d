"""Paths with arguments: `/api/facilities/{id}`.

Owns what such a template matches: an argument is one segment, not empty, decoded strictly. Nothing else is decoded: a
path that spells a fixed part with escapes is another path.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import unquote_to_bytes

_ARGUMENT = re.compile(r"\{([A-Za-z_]+)\}")


@lru_cache(1_024)
def pattern_of(template: str) -> re.Pattern[str]:
    """What matches a template, with its arguments as named groups."""
    parts = _ARGUMENT.split(template)
    return re.compile(
        "".join(rf"(?P<{part}>[^/]+)" if number % 2 else re.escape(part) for number, part in enumerate(parts))
    )


def arguments_of(pattern: re.Pattern[str], path: str) -> Mapping[str, str] | None:
    """The decoded arguments of a path; None if it does not match, or holds what is not UTF-8, or a NUL, which no
    database wants."""
    found = pattern.fullmatch(path)
    if found is None:
        return None
    if "%00" in path:
        return None
    try:
        return {name: unquote_to_bytes(value).decode() for name, value in found.groupdict().items()}
    except UnicodeDecodeError:
        return None
