"""The console in a tab: what a person sees and does there, as values and calls.

A script that runs before the page's own collects everything that the browser complains about: errors, failed loads,
broken policy.
"""

from __future__ import annotations

import json
from typing import Any

from tests.browser.chromium import Page

_BEFORE = """
window.complaints = [];
const complain = (kind, told) => (event) => window.complaints.push(`${kind}: ${told(event)}`);
addEventListener("error", complain("error", (event) => event.message || event.target.src), true);
addEventListener("unhandledrejection", complain("rejection", (event) => event.reason));
addEventListener("securitypolicyviolation", complain("policy", (event) => event.violatedDirective));
for (const level of ["error", "warn"]) console[level] = complain(level, String);

window.loads = () => performance.getEntriesByType("resource");
window.rows = () => [...document.querySelectorAll("#rows li")].map(({ children }) => [children[1].textContent, children[2].textContent]);
window.pixels = (name) => {
  const canvas = document.querySelector(name);
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return data.filter((value, index) => index % 4 === 3 && value > 0).length;
};
"""  # noqa: E501


def quoted(text: str) -> str:
    """A text as a JavaScript literal."""
    return json.dumps(text)


class View:
    """One console. `page` is the tab."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        page.call("Page.enable")
        page.call("Page.addScriptToEvaluateOnNewDocument", source=_BEFORE)
        page.open(url)

    @property
    def complaints(self) -> list[str]:
        return list(self.page.run("window.complaints"))

    @property
    def failed_loads(self) -> list[str]:
        """Addresses that were answered with an error."""
        return list(self.page.run("loads().filter(load => load.responseStatus >= 400).map(load => load.name)"))

    @property
    def addresses(self) -> list[str]:
        """Every address that the page has asked for."""
        return list(self.page.run("loads().map(load => load.name)"))

    @property
    def rows(self) -> list[tuple[str, str]]:
        """(type, text) of each row, newest first."""
        return [tuple(row) for row in self.page.run("rows()")]

    def text(self, element: str) -> str:
        return str(self.page.run(f"document.getElementById({quoted(element)}).textContent"))

    def hidden(self, element: str) -> bool:
        return bool(self.page.run(f"document.getElementById({quoted(element)}).hidden"))

    def fill(self, element: str, text: str) -> None:
        """Type into a field: its value, and the event that typing makes."""
        found = f"document.getElementById({quoted(element)})"
        self.page.run(f'{found}.value = {quoted(text)}, {found}.dispatchEvent(new Event("input", {{bubbles: true}}))')

    def press(self, element: str) -> None:
        self.page.run(f"document.getElementById({quoted(element)}).click()")

    def submit(self, form: str) -> None:
        self.page.run(f"document.getElementById({quoted(form)}).requestSubmit()")

    def key(self, name: str) -> None:
        """A key pressed and let go."""
        for kind in ("rawKeyDown", "keyUp"):
            self.page.call("Input.dispatchKeyEvent", type=kind, key=name, code=name)

    def wait_row(self, kind: str, text: str) -> None:
        """Wait for a row of this type whose text holds `text`."""
        self.page.wait(f"rows().some(([type, text]) => type === {quoted(kind)} && text.includes({quoted(text)}))")

    def wait_state(self, name: str) -> str:
        """Wait for a state of the connection; what the page says of it."""
        self.page.wait(f'document.getElementById("state").dataset.state === {quoted(name)}')
        return self.text("state-text")

    def wait_text(self, element: str, part: str) -> None:
        self.page.wait(f"document.getElementById({quoted(element)}).textContent.includes({quoted(part)})")

    def wait_number(self, element: str, least: float) -> None:
        """Wait until an element shows a number of at least `least`."""
        shown = f"document.getElementById({quoted(element)}).textContent"
        self.page.wait(f'parseFloat({shown}.replace(",", "")) >= {least}')

    def wait_drawn(self, canvas: str) -> None:
        """Wait until something is on a canvas."""
        self.page.wait(f"pixels({quoted(canvas)}) > 0")

    def value(self, script: str) -> Any:
        return self.page.run(script)
