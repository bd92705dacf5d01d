"""A crowd that watches facilities (`apps=facilities`): what `locustfile.py` does, on the streams of the application.

`--topics N` spreads readers and changes over `fac_001` to the N-th. With the default of one topic all watch `fac_001`.
"""

from __future__ import annotations

from benchmarks.locust import options, thresholds, users

__all__ = ["FacilityPublisher", "FacilityReader", "options", "thresholds"]


def facility(topic: int) -> str:
    """A facility's id."""
    return f"fac_{topic + 1:03}"


class FacilityReader(users.Reader):
    """Watches one facility."""

    def path(self, topic: int) -> str:
        return f"/api/stream/facilities/{facility(topic)}"


class FacilityPublisher(users.Publisher):
    """Says that waiting times have changed."""

    def channel(self) -> str:
        return "facilities"

    def event(self, topic: int) -> dict[str, object]:
        return {"topic": f"facilities/{facility(topic)}", "type": "wait_time_update"}
