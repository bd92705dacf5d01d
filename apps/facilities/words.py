"""Words of names and questions, so that "Sao Paulo", "são paulo" and "SÃO-PAULO" are the same. Pure.

Owns the folding. Must never know what is looked for.
"""

from __future__ import annotations

import unicodedata

# For ASCII, which most names are: there are tens of thousands at start.
_PLAIN = {code: " " for code in range(128) if not chr(code).isalnum()}


def folded(text: str) -> str:
    """Lower case, without accents, and with one space for whatever is no letter or digit."""
    if text.isascii():
        return " ".join(text.lower().translate(_PLAIN).split())
    plain = unicodedata.normalize("NFKD", text.casefold())
    kept = (mark if mark.isalnum() else " " for mark in plain if not unicodedata.combining(mark))
    return " ".join("".join(kept).split())


def words_of(text: str) -> list[str]:
    """The folded words of a text, each once, in their order."""
    return list(dict.fromkeys(folded(text).split()))
