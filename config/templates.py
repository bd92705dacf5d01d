"""Templates: texts with places that are filled from a message, such as `companies/{json.company.id}`.

Owns their syntax, and so what an operator is told of a slip. Pure. There is nothing to be evaluated: a place names a
part of the message, by a path of names and numbers. What a place means is in bridges/mapping.py.

    {json.path.to.0.field}   a field of the body, which is JSON; a number counts in a list, from 0
    {subject}, {subject[1]}  where the message came from, and its parts, from 0
    {attributes.name}        a header or attribute
    {id}, {body}             the message's own id; the body as text
    {{ and }}                a brace

Bounded: characters, places and the length of a path; one pass over the text.
"""

from __future__ import annotations

import re
from typing import NamedTuple

MAX_CHARACTERS = 4_096
MAX_PLACES = 32
MAX_STEPS = 16
MAX_DEPTH = 16  # of JSON whose texts are templates

_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]|[^{}]+")
_SUBJECT = re.compile(r"subject\[([0-9]{1,2})\]", re.ASCII)
_WHOLE = ("subject", "id", "body")
_KNOWN = "json.PATH, subject, subject[N], attributes.NAME, id or body"


class Place(NamedTuple):
    """A part of a message: of what, and the way there. `text` is how it was written."""

    root: str
    steps: tuple[str, ...]
    text: str


Template = tuple[str | Place, ...]


def parse_template(text: str) -> Template:
    """Texts and places in order. Raises ValueError."""
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"a template must be at most {MAX_CHARACTERS} characters")
    pieces: list[str | Place] = []
    for found in _PIECE.finditer(text):
        piece = found[0]
        if found[1] is not None:
            pieces.append(_place(found[1].strip()))
        elif piece in ("{", "}"):
            raise ValueError(f"has a lone {piece} (a brace itself is written twice)")
        else:
            pieces.append({"{{": "{", "}}": "}"}.get(piece, piece))
    if sum(isinstance(piece, Place) for piece in pieces) > MAX_PLACES:
        raise ValueError(f"a template must have at most {MAX_PLACES} places")
    return tuple(pieces)


def _place(text: str) -> Place:
    root, _, rest = text.partition(".")
    token = _SUBJECT.fullmatch(text)
    if token:
        return Place("subject", (token[1],), text)
    if text in _WHOLE:
        return Place(text, (), text)
    if root == "attributes" and rest:
        return Place(root, (rest,), text)
    steps = tuple(rest.split("."))
    if root != "json" or not all(steps):
        raise ValueError(f"{{{text[:80]}}} is no part of a message: {_KNOWN}")
    if len(steps) > MAX_STEPS:
        raise ValueError(f"{{{text[:80]}}} has more than {MAX_STEPS} steps")
    return Place(root, steps, text)
