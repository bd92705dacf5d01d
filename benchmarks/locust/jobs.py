"""Pages that watch jobs (`apps=jobs`): what `locustfile.py` does, on the streams of the application.

`--topics N` is how many jobs there are. They are begun by the test, of which nobody else knows their ids: run it in one
process. Nobody does them, unless a worker runs.
"""

from __future__ import annotations

from locust.env import Environment

from benchmarks.locust import options, thresholds, users
from benchmarks.locust.furnishing import Furnishing, posted

__all__ = ["JobPublisher", "JobReader", "options", "thresholds"]

JOBS = "/api/v1/jobs"


def begin(environment: Environment, topic: int) -> str:
    """The id of a new job. Raises OSError."""
    wanted = {"topics": [f"load {topic}"], "texts": ["Nobody reads this."]}
    status, answer = posted(environment, JOBS, wanted, users.headers(environment))
    if answer is None:
        raise OSError(f"no job: status {status}")
    return str(answer["jobId"])


jobs = Furnishing(begin)


class JobReader(users.Reader):
    """Watches one job."""

    def path(self, topic: int) -> str:
        return f"{JOBS}/{jobs.of(self.environment, topic)}/events"


class JobPublisher(users.Publisher):
    """Says how jobs stand."""

    def channel(self) -> str:
        return "jobs"

    def event(self, topic: int) -> dict[str, object]:
        return {"topic": f"jobs/{jobs.of(self.environment, topic)}", "private": True}
