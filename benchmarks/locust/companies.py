"""Dashboards of companies (`apps=companies`): what `locustfile.py` does, on the streams of the application.

`--topics N` is how many companies there are: `company-0` to `company-N`, without the last. Where keys are configured a
token names one company, so then it is one: `--topics 1` and a token of `company-0`.
"""

from __future__ import annotations

from benchmarks.locust import options, thresholds, users

__all__ = ["CompanyPublisher", "CompanyReader", "options", "thresholds"]


class CompanyReader(users.Reader):
    """A company's dashboard."""

    def path(self, topic: int) -> str:
        return f"/stream/updates?companyId=company-{topic}"


class CompanyPublisher(users.Publisher):
    """Says that metrics were calculated."""

    def channel(self) -> str:
        return "companies"

    def event(self, topic: int) -> dict[str, object]:
        return {"topic": f"companies/company-{topic}", "type": "metric_updated", "private": True}
