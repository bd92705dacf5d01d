"""Extraction: the text of a page, or of a plain text, from the bytes that came.

Owns the choice of a charset, what of a page is its text, and the cleaning of it. Pure. Must never know where bytes come
from, and takes any: a page of a stranger must not cost more than its length.

That is why the parser is never closed: at the end of its input it looks again and again for the end of what was left
open, in quadratic time (256 KiB of `<a ` are minutes). Fed in pieces it is linear; what stays open is left out.
Cost: about 20 ms for 256 KiB.
"""

from __future__ import annotations

import codecs
import re
from html.parser import HTMLParser
from typing import NamedTuple

PIECE_CHARACTERS = 16_384
MAX_TITLE_CHARACTERS = 200
PLAIN = "text/plain"
HTML = ("text/html", "application/xhtml+xml")
READABLE = (PLAIN, *HTML, "text/markdown")

# What is inside of these is for machines or for finding one's way, and is no text of the page.
_SKIPPED = frozenset(["script", "style", "noscript", "template", "svg", "nav", "footer", "aside", "form", "button"])
_MACHINES = frozenset(["script", "style", "template", "svg"])
_INLINE = frozenset(
    ["a", "abbr", "b", "bdi", "cite", "code", "em", "font", "i", "kbd", "mark", "q", "s", "small", "span", "strong",
     "sub", "sup", "time", "u", "var", "wbr"]
)  # fmt: skip
_META_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?([A-Za-z0-9_.:-]{2,40})", re.IGNORECASE)
_SPACES = re.compile(r"[^\S\n]+")
_BREAKS = re.compile(r"\s*\n\s*")
# Control and format characters, halves of surrogate pairs and private ones: but for line ends and tabs.
_UNWANTED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\uf8ff\ufeff]")
_LOOKED_AT_BYTES = 2_048
_MAX_OPEN = 50


class Text(NamedTuple):
    """What there is to read. Paragraphs are lines of their own."""

    title: str
    body: str


def extract(content: bytes, content_type: str) -> Text:
    """The text of what came with this media type, which is one of `READABLE`."""
    media_type, charset = read_content_type(content_type)
    text = _decoded(content, charset)
    if media_type in HTML:
        return _of_page(text)
    return Text("", cleaned(text))


def read_content_type(value: str) -> tuple[str, str]:
    """Media type and charset of a Content-Type, in lower case; "" for what it does not say."""
    media_type, *parameters = (part.strip() for part in value.lower().split(";"))
    charset = next((part[8:].strip("\"' ") for part in parameters if part.startswith("charset=")), "")
    return media_type, charset


def cleaned(text: str) -> str:
    """Text with single spaces, a line per paragraph, and nothing that is not to be seen."""
    visible = _UNWANTED.sub("", text.replace("\r", "\n"))
    return _BREAKS.sub("\n", _SPACES.sub(" ", visible)).strip()


def _decoded(content: bytes, charset: str) -> str:
    for mark, name in ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16")):
        if content.startswith(mark):
            return content.decode(name, "replace")
    found = _META_CHARSET.search(content[:_LOOKED_AT_BYTES])
    for name in (charset, found[1].decode("ascii") if found else "", "utf-8"):
        try:
            # By way of the codec's own name: Python knows codecs that do not make text.
            if name and codecs.lookup(name)._is_text_encoding:
                return content.decode(name)
        except (LookupError, ValueError):
            continue
    return content.decode("cp1252", "replace")


def _of_page(markup: str) -> Text:
    page = _Page()
    for start in range(0, len(markup), PIECE_CHARACTERS):
        page.feed(markup[start : start + PIECE_CHARACTERS])
    page.feed("<br>")  # what waited for the end of a character reference
    body = cleaned("".join(page.text)) or cleaned("".join(page.everything))
    return Text(cleaned("".join(page.title)).replace("\n", " ")[:MAX_TITLE_CHARACTERS], body)


class _Page(HTMLParser):
    """Collects the text, and beside it everything that a reader could see: some pages are all in one form."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.text: list[str] = []
        self.everything: list[str] = []
        self.title: list[str] = []
        self._open: list[str] = []  # of those that are skipped
        self._in_title = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        if tag in _SKIPPED and len(self._open) < _MAX_OPEN:
            self._open.append(tag)
        self._in_title = tag == "title"
        self._break(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        self._break(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._open:
            while self._open.pop() != tag:  # what was not closed inside is closed with it
                pass
        self._in_title = False
        self._break(tag)

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title.append(data)
        elif not self._open:
            self.text.append(data)
            self.everything.append(data)
        elif not _MACHINES.intersection(self._open):
            self.everything.append(data)

    def _break(self, tag: str) -> None:
        if tag not in _INLINE:
            self.text.append("\n")
            self.everything.append("\n")
