"""Batches: lines of standard input as publishes.

Owns how lines are joined: as many as have arrived, up to a bound. So a slow writer's line goes out at once, and a fast
one's lines go out together, without a clock. Must never know of the network. Cost: one copy of the input.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

# Below the server's bounds for one request (max_body_bytes, max_batch_events), with room for defaults that are added.
READ_BYTES = 256 * 1024
MAX_LINES = 5000


class InvalidLine(ValueError):
    """A line that is no event. The text names the line."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Whole lines, without blank ones. `numbers` are their places in the input, from 1."""

    lines: list[bytes]
    numbers: list[int]

    @property
    def body(self) -> bytes:
        """The lines as NDJSON."""
        return b"\n".join(self.lines) + b"\n"


def batches(read: Callable[[int], bytes], max_lines: int = MAX_LINES) -> Iterator[Batch]:
    """Batches from `read(size)`, which gives what there is, at least a byte, or nothing at the end."""
    rest, number = b"", 0
    while piece := read(READ_BYTES):
        *lines, rest = (rest + piece).split(b"\n")
        yield from _parts(lines, number, max_lines)
        number += len(lines)
    yield from _parts([rest], number, max_lines)


def _parts(lines: list[bytes], before: int, max_lines: int) -> Iterator[Batch]:
    numbered = [(line, number) for number, line in enumerate(lines, before + 1) if line.strip()]
    for start in range(0, len(numbered), max_lines):
        part = numbered[start : start + max_lines]
        yield Batch([line for line, _ in part], [number for _, number in part])


def with_defaults(batch: Batch, defaults: Mapping[str, object]) -> Batch:
    """Fields of `defaults` added to each event that does not say otherwise. Raises InvalidLine."""
    if not defaults:
        return batch
    return Batch([_filled(*item, defaults) for item in zip(batch.lines, batch.numbers, strict=True)], batch.numbers)


def _filled(line: bytes, number: int, defaults: Mapping[str, object]) -> bytes:
    try:
        event = json.loads(line)
    except ValueError:
        raise InvalidLine(f"line {number} is not JSON") from None
    if not isinstance(event, dict):
        raise InvalidLine(f"line {number} is not a JSON object")
    # `topic` and `topics` are two spellings of one field.
    taken = {"topic", "topics"} & event.keys()
    missing = {name: value for name, value in defaults.items() if not (taken and name == "topics")}
    return json.dumps(missing | event, ensure_ascii=False).encode("utf-8", "surrogatepass")
