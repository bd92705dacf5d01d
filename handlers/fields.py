"""Fields: the strict reading of queries and form bodies.

Owns percent-decoding with errors. Frameworks replace bad bytes and strip white space, so that a value that was checked
is not the value that was sent; here what is not UTF-8 is refused and nothing is altered. Source: URL Standard,
application/x-www-form-urlencoded parsing (`;` is data, `+` a space). And the parameters that the general endpoint and
applications have in common: a region, and how many events from before.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import unquote_to_bytes

from handlers.answers import bad
from server.region import OutOfRange, Region

MAX_FIELDS = 1_000
MAX_LAST = 1_000
DEFAULT_RADIUS_KM = 50.0
REGION_NAMES = ("lat", "lon", "radius")
_NUMBER = re.compile(r"[-+]?(\d{1,20}(\.\d{0,20})?|\.\d{1,20})([eE][-+]?\d{1,3})?", re.ASCII)
_PARAMETERS = {"latitude": "lat", "longitude": "lon", "radius_km": "radius"}


def parse_form(text: bytes) -> list[tuple[str, bytes]]:
    """Name and undecoded-to-text value of each field, in order. Raises Refused for a name that is not UTF-8, or too
    many fields."""
    if text.count(b"&") >= MAX_FIELDS:
        raise bad("", f"at most {MAX_FIELDS} fields", too_large=True)
    fields = []
    for part in text.split(b"&"):
        if part:
            name, _, value = part.partition(b"=")
            fields.append((decoded("", unescaped(name)), unescaped(value)))
    return fields


def parse_query(text: str) -> list[tuple[str, bytes]]:
    """Name and bytes of each query parameter, in order. Raises Refused for a name that is not UTF-8."""
    return parse_form(text.encode("latin-1", "replace")) if text else []


def unescaped(value: bytes) -> bytes:
    """Percent-decoding and `+` as space."""
    if b"+" in value:
        value = value.replace(b"+", b" ")
    return unquote_to_bytes(value) if b"%" in value else value


def decoded(field: str, value: bytes) -> str:
    """`value` as text. Raises Refused if it is not UTF-8."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise bad(field, "must be UTF-8") from None


def parse_last(value: str | None) -> int:
    """How many events from before are wanted (`last`); 0 if nothing is said. Raises Refused."""
    if value is None:
        return 0
    if not (value.isascii() and value.isdigit() and len(value) <= 4 and 1 <= int(value) <= MAX_LAST):
        raise bad("last", f"must be a number from 1 to {MAX_LAST}")
    return int(value)


def parse_number(field: str, value: str) -> float:
    """`value` as a number. Raises Refused; not for one that is too large for anybody, which is infinite."""
    if _NUMBER.fullmatch(value) is None:
        raise bad(field, "must be a number")
    return float(value)


def parse_region(parameters: Mapping[str, str]) -> Region | None:
    """The region that `lat`, `lon` and `radius` (in km) name; None if none of the three is there. Raises Refused."""
    found = {name: parse_number(name, parameters[name]) for name in REGION_NAMES if name in parameters}
    if not found:
        return None
    for name in ("lat", "lon"):
        if name not in found:
            raise bad(name, "is needed for a region")
    try:
        return Region(found["lat"], found["lon"], found.get("radius", DEFAULT_RADIUS_KM))
    except OutOfRange as error:
        raise bad(_PARAMETERS[error.field], error.reason) from None
