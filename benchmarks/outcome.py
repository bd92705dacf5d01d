"""What a scenario found: figures with their spread, checks against the target, and what was lost on the way."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field

from benchmarks.storm import Run


@dataclass(frozen=True)
class Spread:
    """Median, lowest and highest of several repetitions."""

    median: float
    low: float
    high: float
    runs: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        kept = sorted(values)
        return cls(statistics.median(kept), kept[0], kept[-1], len(kept))


@dataclass(frozen=True)
class Check:
    """One sentence of a target: what was measured, in what unit, the limit, and whether it holds."""

    what: str
    measured: float
    unit: str
    limit: float
    at_most: bool = True

    @property
    def ratio(self) -> float:
        """Measured by limit; below 1 is good for an upper limit, above 1 for a lower one."""
        return self.measured / self.limit if self.limit else self.measured

    @property
    def passed(self) -> bool:
        return self.measured <= self.limit if self.at_most else self.measured >= self.limit


@dataclass
class Outcome:
    """One row of the table of targets."""

    name: str
    title: str
    target: str
    checks: list[Check] = field(default_factory=list)
    figures: dict[str, dict[str, Spread]] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, runs: Sequence[Run], metrics: Iterable[str], *, label: str | None = None) -> None:
        """Keeps the figures of one server's repetitions under its name (or `label`)."""
        self.keep(runs)
        if runs:
            self.add_figures(label or runs[0].server, runs, metrics)

    def add_figures(self, label: str, runs: Sequence[Run], metrics: Iterable[str]) -> None:
        """Figures of runs that are kept already."""
        self.figures.setdefault(label, {}).update(
            {metric: Spread.of(run[metric] for run in runs) for metric in metrics}
        )

    def keep(self, runs: Sequence[Run]) -> None:
        """Keeps the runs, and reports those of the server under test that lost something."""
        self.runs += runs
        for run in runs:
            if run.losses:
                lost = ", ".join(f"{count} {kind}" for kind, count in run.losses.items())
                (self.failures if run.server == "ringcast" else self.notes).append(f"{run.server}, {run.label}: {lost}")

    def check(
        self,
        what: str,
        measured: float | None,
        unit: str,
        *,
        at_most: float | None = None,
        at_least: float | None = None,
    ) -> None:
        """Adds a check; None means that it could not be measured, which is a failure."""
        limit = at_most if at_most is not None else at_least
        assert limit is not None
        if measured is None:
            self.failures.append(f"not measured: {what}")
        else:
            self.checks.append(Check(what, measured, unit, limit, at_most is not None))

    def median(self, server: str, metric: str) -> float | None:
        """The median of a figure, None when there is none."""
        found = self.figures.get(server, {}).get(metric)
        return None if found is None else found.median

    @property
    def passed(self) -> bool:
        return bool(self.checks) and all(check.passed for check in self.checks) and not self.failures

    def as_json(self) -> dict[str, object]:
        """For results/*.json."""
        checks = [asdict(check) | {"ratio": check.ratio, "passed": check.passed} for check in self.checks]
        figures = {
            server: {metric: asdict(spread) for metric, spread in metrics.items()}
            for server, metrics in self.figures.items()
        }
        runs = [{"server": run.server, "label": run.label} | run.report for run in self.runs]
        return {
            "name": self.name,
            "title": self.title,
            "target": self.target,
            "passed": self.passed,
            "checks": checks,
            "failures": self.failures,
            "notes": self.notes,
            "figures": figures,
            "runs": runs,
        }


def ratio(numerator: float | None, denominator: float | None) -> float | None:
    """None when one of them is missing or there is nothing to divide by."""
    return numerator / denominator if numerator is not None and denominator else None
