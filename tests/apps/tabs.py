"""A browser's tabs on the pages of applications: what the browser complained about, texts that are waited for, forms.

Knows no page.
"""

from __future__ import annotations

import json
from typing import Any

from tests.browser.chromium import Chromium, Page

_BEFORE = """
window.complaints = [];
addEventListener("error", (event) => complaints.push(event.message || event.target.src), true);
addEventListener("unhandledrejection", (event) => complaints.push(String(event.reason)));
addEventListener("securitypolicyviolation", (event) => complaints.push(event.violatedDirective));
"""


class Tabs:
    """The tabs that a test has opened."""

    def __init__(self, chromium: Chromium) -> None:
        self._chromium = chromium
        self._pages: list[Page] = []

    def open(self, url: str) -> Page:
        """A tab that has loaded `url`, and notes from its beginning what the browser complains about."""
        page = self._chromium.page("about:blank")
        self._pages.append(page)
        page.call("Page.enable")
        page.call("Page.addScriptToEvaluateOnNewDocument", source=_BEFORE)
        page.open(url)
        return page

    def close(self) -> None:
        """Close all. A page that made the browser complain fails its test."""
        complaints = [page.run("window.complaints") for page in self._pages]
        for page in self._pages:
            page.close()
        assert complaints == [[] for _ in self._pages]


def text(page: Page, name: str) -> Any:
    """The text of the element with this id."""
    return page.run(f"document.getElementById({json.dumps(name)}).textContent")


def wait_text(page: Page, selector: str, wanted: str) -> None:
    """Wait until the first element that `selector` finds has this text."""
    page.wait(f"document.querySelector({json.dumps(selector)})?.textContent === {json.dumps(wanted)}")


def fill(page: Page, form: str, **fields: str) -> None:
    """Fill a form in and submit it."""
    for name, value in fields.items():
        page.run(f"document.getElementById('{form}').elements['{name}'].value = {json.dumps(value)}")
    page.run(f"document.getElementById('{form}').requestSubmit()")
