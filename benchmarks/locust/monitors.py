"""Dashboards of tenants (`apps=monitors`): what `locustfile.py` does, on the streams of the application.

`--topics N` is how many tenants there are. They are registered, or signed in where they were before: the server must
let strangers register, and lets one address do so ten times a minute (`monitors_logins_per_minute`), and one tenant
open some streams at a time (`monitors_streams_burst`).
"""

from __future__ import annotations

from typing import Any

from locust.env import Environment

from benchmarks.locust import options, thresholds, users
from benchmarks.locust.furnishing import Furnishing, posted

__all__ = ["MonitorPublisher", "MonitorReader", "options", "thresholds"]

AUTH = "/api/v1/auth"


def sign_in(environment: Environment, topic: int) -> Any:
    """A tenant's token and facts. Raises OSError."""
    account = {"email": f"load-{topic}@load.example", "password": "not a secret: of a load test"}
    status, answer = posted(environment, f"{AUTH}/register", account, {})
    if status == 409:
        status, answer = posted(environment, f"{AUTH}/login", account, {})
    if answer is None:
        raise OSError(f"no tenant: status {status}")
    return answer


tenants = Furnishing(sign_in)


class MonitorReader(users.Reader):
    """A tenant's dashboard."""

    hello = "connected"

    def path(self, topic: int) -> str:  # noqa: ARG002 (see Reader)
        return "/api/v1/stream/events"

    def headers(self, topic: int) -> dict[str, str]:
        return {"Authorization": f"Bearer {tenants.of(self.environment, topic)['token']}"}


class MonitorPublisher(users.Publisher):
    """Says what checks have found."""

    def channel(self) -> str:
        return "monitors"

    def event(self, topic: int) -> dict[str, object]:
        tenant = tenants.of(self.environment, topic)["tenant"]["id"]
        return {"topic": f"tenants/{tenant}", "type": "monitor_check", "private": True}
