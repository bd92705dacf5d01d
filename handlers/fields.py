"""Fields: the strict reading of queries and form bodies.

Owns percent-decoding with errors. Frameworks replace bad bytes and strip white space, so that a value that was checked
is not the value that was sent; here what is not UTF-8 is refused and nothing is altered. Source: URL Standard,
application/x-www-form-urlencoded parsing (`;` is data, `+` a space).
"""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from handlers.answers import bad

MAX_FIELDS = 1_000


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
