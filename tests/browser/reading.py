"""A parser of event streams that runs in a page, judged by the corpus.

The script has a class `Parser` whose listener is told of `event({type, data, id})`, `cursor(id)` and `retry(ms)`, and
which is fed by `push(text)`. Knows no page.
"""

from __future__ import annotations

import json
from typing import Any

from tests.browser.chromium import Page
from tests.wire.corpus import CASES
from tests.wire.parser import Dispatched

_READ = """
(async () => {
  const { Parser } = await import(%s);
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


def check_reading(page: Page, script: str, step: int) -> None:
    """The parser of the script at this path reads the corpus as the standard says, in pieces of `step` bytes."""
    streams = [[case.stream.decode("latin-1"), step] for case in CASES]
    outcomes: list[Any] = page.run(_READ % (json.dumps(script), json.dumps(streams)))
    for case, (events, last_event_id, retry_ms) in zip(CASES, outcomes, strict=True):
        assert [Dispatched(*event) for event in events] == case.events, case.name
        assert (last_event_id, retry_ms) == (case.last_event_id, case.retry_ms), case.name
