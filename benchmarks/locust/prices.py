"""Charts of prices (`apps=prices`): what `locustfile.py` does, on the stream of the application.

Every reader gets all items. `--topics N` is how many items have changes: made-up ones, which no history knows.
"""

from __future__ import annotations

from benchmarks.locust import options, thresholds, users

__all__ = ["PricePublisher", "PriceReader", "options", "thresholds"]

FIRST_ITEM = 900_000_000


class PriceReader(users.Reader):
    """A page that shows the prices of all items."""

    hello = "connected"

    def path(self, topic: int) -> str:  # noqa: ARG002 (see Reader)
        return "/api/v1/prices/stream"


class PricePublisher(users.Publisher):
    """Says that prices have changed."""

    def channel(self) -> str:
        return "prices"

    def event(self, topic: int) -> dict[str, object]:
        return {"topic": f"items/{FIRST_ITEM + topic}", "type": "price-update"}
