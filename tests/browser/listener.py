"""A native EventSource in a page, and what its listeners saw."""

from __future__ import annotations

import json
from typing import Any

from tests.browser.chromium import Page

CONNECTING, OPEN, CLOSED = 0, 1, 2

_OPEN = """
(() => {
  const [url, types, options] = %s;
  const source = new EventSource(url, options);
  const seen = [];
  source.onopen = () => seen.push(["(open)", "", ""]);
  source.onerror = () => seen.push(source.readyState === 2 ? ["(closed)", "", ""] : ["(reconnecting)", "", ""]);
  for (const type of types) source.addEventListener(type, (event) => seen.push([type, event.data, event.lastEventId]));
  window.sources = window.sources || [];
  return window.sources.push({source, seen}) - 1;
})()
"""


class Source:
    """One EventSource. `seen` are (type, data, last event id); what is not an event stands in parentheses."""

    def __init__(self, page: Page, url: str, *types: str, with_credentials: bool = False) -> None:
        self.page = page
        arguments = [url, ["message", "hello", *types], {"withCredentials": with_credentials}]
        self._name = f"window.sources[{page.run(_OPEN % json.dumps(arguments))}]"

    @property
    def ready_state(self) -> int:
        return int(self.page.run(f"{self._name}.source.readyState"))

    @property
    def seen(self) -> list[tuple[str, str, str]]:
        return [tuple(event) for event in self.page.run(f"{self._name}.seen")]

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, _, _ in self.seen]

    @property
    def messages(self) -> list[tuple[str, str, str]]:
        """What was published, without the server's own events."""
        return [event for event in self.seen if event[0] == "message"]

    def wait_state(self, state: int) -> None:
        self.page.wait(f"{self._name}.source.readyState === {state}")

    def wait_for(self, kind: str, count: int = 1) -> list[tuple[str, str, str]]:
        """Wait until `kind` was seen `count` times; those."""
        those = f"{self._name}.seen.filter(event => event[0] === {json.dumps(kind)})"
        found: Any = self.page.wait(f"(found => found.length >= {count} && found)({those})")
        return [tuple(event) for event in found]

    def wait_id(self, event_id: str) -> None:
        """Wait until a published event with this id was seen."""
        self.page.wait(
            f"{self._name}.seen.some(event => event[0] === 'message' && event[2] === {json.dumps(event_id)})"
        )

    def close(self) -> None:
        self.page.run(f"{self._name}.source.close()")
