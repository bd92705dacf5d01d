"""The console's parser reads every stream of the corpus as the standard says, in the browser that runs it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.console.conftest import OpenConsole
from tests.harness.process import Node
from tests.wire.corpus import CASES
from tests.wire.parser import Dispatched

_READ = """
(async () => {
  const { Parser } = await import("/console/eventstream.js");
  return %s.map(([stream, step]) => {
    const events = [];
    const state = { retry: null, id: "" };
    const parser = new Parser({
      event: ({ type, data, id }) => events.push([type, data, id]),
      cursor: (id) => (state.id = id),
      retry: (milliseconds) => (state.retry = milliseconds),
    });
    const decoder = new TextDecoder();
    const bytes = Uint8Array.from(stream, (character) => character.charCodeAt(0));
    for (let at = 0; at < bytes.length; at += step) {
      parser.push(decoder.decode(bytes.subarray(at, at + step), { stream: true }));
    }
    return [events, state.id, state.retry];
  });
})()
"""


@pytest.mark.parametrize("step", [1, 2, 3, 1_000_000])
def test_the_corpus_reads_as_the_standard_says(machine_node: Node, console: OpenConsole, step: int) -> None:
    streams = [[case.stream.decode("latin-1"), step] for case in CASES]
    outcomes: list[Any] = console(machine_node).value(_READ % json.dumps(streams))
    for case, (events, last_event_id, retry_ms) in zip(CASES, outcomes, strict=True):
        assert [Dispatched(*event) for event in events] == case.events, case.name
        assert (last_event_id, retry_ms) == (case.last_event_id, case.retry_ms), case.name
