"""Problems: what is wrong with a configuration, one line for each setting, without ever showing a secret."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass

# User name and password in an address such as redis://user:password@host.
_CREDENTIALS = re.compile(r"//[^/\s]*@")
_MAX_SHOWN = 80


@dataclass(frozen=True, slots=True)
class Problem:
    """A setting (or the file itself), where its value came from, and what is wrong."""

    name: str
    source: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name} ({self.source}): {self.reason}"


class ConfigError(Exception):
    """The configuration cannot be used. The text is one line per problem."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


def redact(text: str) -> str:
    """`text` without credentials in addresses."""
    return _CREDENTIALS.sub("//***@", text)


def quote(value: object) -> str:
    """A value as an error shows it: on one line, short, without credentials."""
    text = redact(repr(value))
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"


def suggestion(name: str, known: Iterable[str]) -> str:
    """` (did you mean …?)`, or nothing if no known name is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" (did you mean {near[0]}?)" if near else ""
