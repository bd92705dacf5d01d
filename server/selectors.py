"""Topic selectors: which topics a subscription or a grant covers.

Owns the three kinds of selector (`*`, an exact string, an RFC 6570 URI template) and their matching. Must never know of
channels, feeds, tokens or sockets. Selectors come from strangers, so both parsing and matching are bounded whatever the
text: nothing here backtracks, and no regular expression is compiled from a selector.

Invariants: a `Selector` that exists is valid; `selector.matches(topic)` implies `topic.startswith(selector.prefix)`, so
an index may look up by prefix.

How a template matches. An expression accepts a run of characters: `{x}` unreserved ones, comma and %XX; `{+x}` and
`{#x}` reserved ones too; `{?x}`, `{&x}`, `{;x}`, `{.x}`, `{/x}` and `{#x}` a run behind their own first character, or
nothing. Lengths (`{x:3}`) do not limit a match. Most templates are deterministic: what follows a run cannot begin with
a character of the run. They are walked once, left to right. The others, and all of them against a long topic, are
matched by following every possible position at the same time, one bit each in an integer; a run spreads by one
addition, because the carry travels along it. What such a match has to know of the topic is found once for all templates
that it is matched against.

Cost: an exact selector compares two strings (0.1 us). A usual template takes 1 us, an ambiguous one 2 us. Against the
longest topic a template takes a quarter of a microsecond for each of its `pattern_bytes`, and the first one some 10 us
for each character that it tells from others; so whoever takes selectors from strangers bounds the sum of these (tests
hold it). Parsing takes 10 us, cached; a selector object is some 500 bytes.

The grammar is checked here and not by the `uritemplate` package: that one accepts anything (`{`, `{}`, `{=x}`) and
cannot match, and whether a text is a template or an exact string decides what a grant covers. Sources: RFC 6570
sections 2 and 3; Mercure draft-07, "Topic selectors".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache

from server.event import is_safe

MAX_SELECTOR_BYTES = 4096
# Long texts are rare and could fill the cache with megabytes: they are parsed each time. The worst take 8 MB in all.
_CACHED_CHARACTERS = 256
_CACHED_SELECTORS = 2048
# Up to here a walk over the topic costs less than a look at the whole of it.
_WALKED_CHARACTERS = 1024
# The topics of one event, for all feeds that ask; a topic takes 150 KB at the worst.
_CACHED_TOPICS = 32

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_UNRESERVED = frozenset(_LETTERS + "0123456789-._~")
_RESERVED = frozenset(":/?#[]@!$&'()*+,;=")

_VARIABLE = r"(?:\w|%[0-9A-Fa-f]{2})++(?:\.(?:\w|%[0-9A-Fa-f]{2})++)*+(?::[1-9]\d{0,3}|\*)?+"
_EXPRESSION = re.compile(rf"\{{([+#./;?&]?)({_VARIABLE}(?:,{_VARIABLE})*+)\}}", re.ASCII)
# RFC 6570 2.1. The apostrophe is allowed by erratum 6937.
_LITERAL = re.compile(r"""(?:[^\x00-\x20\x7f-\x9f"%<>\\^`{|}]|%[0-9A-Fa-f]{2})++""")


class InvalidSelector(ValueError):
    """A text that cannot be a selector. `reason` is fit for the client."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class _Run:
    """What one expression accepts: `first`, then characters of `allowed` and %XX.

    Up to `more` times, `separator` and such characters may follow. An empty `first` means that the run may begin at
    once. `pattern` matches the whole of it, unless `more` is not 0.
    """

    first: str
    allowed: frozenset[str]
    separator: str
    more: int
    pattern: re.Pattern[str] = field(compare=False)

    @property
    def starts(self) -> frozenset[str]:
        """The characters that what this accepts can begin with."""
        return frozenset(self.first) if self.first else self.allowed | {"%"}

    @property
    def goes_on_with(self) -> frozenset[str]:
        """The characters by which this could be longer than nothing, or longer than it is."""
        return self.allowed | {"%", self.first, self.separator}


_Step = str | _Run


@dataclass(frozen=True, slots=True)
class Selector:
    """One selector; equal if text and kind are equal. `any` is `*`; `exact` a plain string; neither: a template.

    `prefix` is what every matching topic begins with: the literal before the first expression, the whole text of an
    exact selector, "" for `*`.
    """

    text: str
    exact: bool
    any: bool
    prefix: str = field(compare=False, repr=False)
    _suffix: str = field(default="", compare=False, repr=False)
    _steps: tuple[_Step, ...] = field(default=(), compare=False, repr=False)
    _deterministic: bool = field(default=False, compare=False, repr=False)

    def matches(self, topic: str) -> bool:
        """True if this selects `topic`. A template also selects the topic that is its own text."""
        if self.any or topic == self.text:
            return True
        if self.exact or not topic.startswith(self.prefix) or not topic.endswith(self._suffix):
            return False
        if self._deterministic and len(topic) <= _WALKED_CHARACTERS:
            return _walk(self._steps, topic, len(self.prefix))
        return _spread(self._steps, _bits_of(topic), len(self.prefix.encode()))

    @property
    def pattern_bytes(self) -> int:
        """The length of a template from its first expression on, which is what a match costs by; else 0."""
        return 0 if self.exact or self.any else len(self.text.encode()) - len(self.prefix.encode())


def parse_selector(text: str) -> Selector:
    """The selector that `text` means: `*`, a URI template, or else an exact topic. Raises InvalidSelector."""
    return _parse_cached(text) if len(text) <= _CACHED_CHARACTERS else _parse(text)


def exact_selector(text: str) -> Selector:
    """A selector of the topic `text`, braces and all; `*` still selects everything. Raises InvalidSelector."""
    _check(text)
    return ANY if text == "*" else Selector(text, exact=True, any=False, prefix=text)


ANY = Selector("*", exact=False, any=True, prefix="")


def _check(text: str) -> None:
    if not text:
        raise InvalidSelector("must not be empty")
    if not is_safe(text):
        raise InvalidSelector("must not hold control or format characters")
    if len(text) * 4 > MAX_SELECTOR_BYTES and len(text.encode()) > MAX_SELECTOR_BYTES:
        raise InvalidSelector(f"must be at most {MAX_SELECTOR_BYTES} bytes")


def _parse(text: str) -> Selector:
    _check(text)
    steps = _steps_of(text) if "{" in text else None
    if steps is None:
        return exact_selector(text)
    first, last = steps[0], steps[-1]
    prefix = first if isinstance(first, str) else ""
    suffix = last if isinstance(last, str) else ""
    if prefix:
        steps.pop(0)
    return Selector(text, False, False, prefix, suffix, tuple(steps), _is_deterministic(steps))


_parse_cached = lru_cache(maxsize=_CACHED_SELECTORS)(_parse)


def _steps_of(template: str) -> list[_Step] | None:
    """The literals and runs of a template, or None if it breaks the grammar."""
    steps: list[_Step] = []
    position = 0
    while position < len(template):
        if found := _LITERAL.match(template, position):
            steps.append(found[0])
        elif found := _EXPRESSION.match(template, position):
            _append_run(steps, _run_of(found[1], found[2]))
        else:
            return None
        position = found.end()
    return steps


def _append_run(steps: list[_Step], run: _Run) -> None:
    """Add a run; of neighbours that need no first character the wider one does for both (one always is)."""
    before = steps[-1] if steps else ""
    if isinstance(before, str) or before.first or run.first:
        steps.append(run)
    elif before.allowed < run.allowed:
        steps[-1] = run


def _run_of(operator: str, variables: str) -> _Run:
    run = _single_run(operator, "*" in variables)
    # Where the separator is itself allowed in a run, several variables accept what one does.
    more = 0 if run.separator in run.allowed else variables.count(",")
    return _Run(run.first, run.allowed, run.separator, more, run.pattern) if more else run


@cache  # at most 16 combinations
def _single_run(operator: str, exploded: bool) -> _Run:
    """The run of an operator and one variable."""
    first = "" if operator == "+" else operator
    separator = {"": ",", "+": ",", "#": ",", "?": "&"}.get(operator, operator)
    allowed = _UNRESERVED | {","}
    if operator in ("+", "#"):
        allowed |= _RESERVED
    if exploded or operator in (";", "?", "&"):
        allowed |= {"="}
    if exploded:
        allowed |= {separator}
    plain = "[" + "".join(map(re.escape, sorted(allowed))) + "]*+"
    characters = f"{plain}(?:%[0-9A-Fa-f]{{2}}{plain})*+"
    pattern = f"(?:{re.escape(first)}{characters})?+" if first else characters
    return _Run(first, allowed, separator, 0, re.compile(pattern))


def _is_deterministic(steps: Sequence[_Step]) -> bool:
    """True if no run can take a character that something behind it may need: only the longest run is to be tried."""
    behind: frozenset[str] = frozenset()
    for step in reversed(steps):
        if isinstance(step, str):
            behind = frozenset(step[0])
            continue
        if step.more or not behind.isdisjoint(step.goes_on_with):
            return False
        behind |= step.starts
    return True


def _walk(steps: Sequence[_Step], topic: str, position: int) -> bool:
    """Match a deterministic template from `position` on. Every pattern matches, if only nothing."""
    for step in steps:
        if isinstance(step, str):
            if not topic.startswith(step, position):
                return False
            position += len(step)
        elif found := step.pattern.match(topic, position):
            position = found.end()
    return position == len(topic)


def _spread(steps: Sequence[_Step], bits: _Bits, start: int) -> bool:
    """Match any template from byte `start` on: bit i of `reached` says that the steps so far can end before byte i."""
    reached = 1 << start
    for step in steps:
        if isinstance(step, str):
            for byte in step.encode():
                reached = bits.after(reached, byte)
                if not reached:
                    return False
        else:
            reached = bits.after_run(reached, step)
            if not reached:
                return False
    return bool(reached >> bits.length & 1)


class _Bits:
    """Sets of positions in one topic, as integers, and how each step moves them."""

    __slots__ = ("_escapes", "_first_hex", "_in_escape", "_masks", "_text", "length")

    def __init__(self, topic: str) -> None:
        text = topic.encode("utf-8", "surrogatepass")
        self.length = len(text)
        self._text = text[::-1]  # bit 0 is the first byte
        self._masks: dict[int | frozenset[str], int] = {}
        hexadecimal = self._mask(_HEXADECIMAL)
        escapes = self._mask(_PERCENT) & hexadecimal >> 1 & hexadecimal >> 2
        self._first_hex = escapes << 1
        self._in_escape = escapes << 1 | escapes << 2
        self._escapes = escapes | self._in_escape

    def _mask(self, table: bytes) -> int:
        return int(self._text.translate(table) or b"0", 2)

    def after(self, reached: int, byte: int) -> int:
        """The positions after `byte`, from each position reached where it stands."""
        mask = self._masks.get(byte)
        if mask is None:
            mask = self._masks[byte] = self._mask(_byte_table(byte))
        return (reached & mask) << 1

    def after_run(self, reached: int, run: _Run) -> int:
        """The positions after what `run` accepts, from each position reached."""
        begun = self.after(reached, ord(run.first)) if run.first else reached
        if not begun:
            return reached
        last = self._along(begun, run.allowed)
        ends = last | reached
        for _ in range(run.more):
            last = self._along(self.after(last, ord(run.separator)), run.allowed)
            if not last:
                break
            ends |= last
        return ends

    def _along(self, reached: int, allowed: frozenset[str]) -> int:
        """`reached` and all that follows it in runs of allowed characters and escapes; none newly inside an escape."""
        mask = self._masks.get(allowed)
        if mask is None:
            mask = self._masks[allowed] = self._mask(_class_table(allowed)) | self._escapes
        # Adding the mask to the starts in it carries to the end of each run; the changed bits are the positions passed.
        passed = ((reached & mask) + mask) ^ mask
        # Who stands behind a literal % already may go on over its digits one by one.
        return passed & ~self._in_escape | reached | (reached & self._first_hex) << 1


_bits_of = lru_cache(maxsize=_CACHED_TOPICS)(_Bits)


def _table(characters: bytes) -> bytes:
    return bytes(ord("1") if byte in characters else ord("0") for byte in range(256))


@lru_cache(maxsize=256)
def _byte_table(byte: int) -> bytes:
    return _table(bytes((byte,)))


@lru_cache(maxsize=16)
def _class_table(allowed: frozenset[str]) -> bytes:
    return _table("".join(allowed).encode())


_HEXADECIMAL = _table(b"0123456789abcdefABCDEF")
_PERCENT = _table(b"%")
