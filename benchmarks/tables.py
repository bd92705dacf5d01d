"""Results as Markdown: every check beside its target, then the servers beside each other."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.servers import SERVERS

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"

# Title, scenario, metric and unit of a row, and what follows a server's name in the names of its series.
COMPARED = (
    ("CPU per delivery, one event at a time", "delivery_cost", "cpu_us_per_delivery", "µs", ""),
    ("until the last reader has it", "delivery_cost", "fanout_p50_ms", "ms", ""),
    ("CPU per new connection", "opening_cost", "open_cpu_us", "µs", ""),
    ("CPU per new connection with a JWT", "opening_cost", "open_cpu_us", "µs", " with JWT"),
    ("memory per idle connection", "idle_memory", "memory_per_reader_kb", "KB", ""),
    ("idle CPU with heartbeats", "idle_cpu", "idle_cpu_percent", "%", ""),
    ("publish to receipt at 100 readers, p50", "latency", "latency_p50_ms", "ms", ""),
    ("publish to receipt at 100 readers, p99", "latency", "latency_p99_ms", "ms", ""),
    ("single publishes accepted", "publish_rate", "accepted_per_second", "/s", ""),
    ("return to 1,000 events each, all caught up", "replay", "caught_up_seconds", "s", ""),
)


def figure(value: float) -> str:
    """Three digits that matter, thousands apart."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.01 or value == 0 else f"{value:.3f}"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head), *([*row] for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def targets(result: dict[str, Any]) -> str:
    """One line for each check; what could not be measured or was lost fails its row."""
    rows = []
    for outcome in result["outcomes"].values():
        for check in outcome["checks"]:
            sign = "≤" if check["at_most"] else "≥"
            verdict = "pass" if check["passed"] and not outcome["failures"] else "**fail**"
            measured, limit = (
                f"{figure(check['measured'])} {check['unit']}",
                f"{sign} {figure(check['limit'])} {check['unit']}",
            )
            rows.append([outcome["title"], check["what"], limit, measured, f"{check['ratio']:.2f}", verdict])
        rows += [
            [outcome["title"], failure, outcome["target"], "–", "–", "**fail**"] for failure in outcome["failures"]
        ]
    return _table(["what", "check", "target", "measured", "measured / target", "result"], rows)


def _cell(outcomes: dict[str, Any], scenario: str, series: str, metric: str, unit: str) -> str:
    spread = outcomes.get(scenario, {}).get("figures", {}).get(series, {}).get(metric)
    if not spread:
        return "–"
    within = f" ({figure(spread['low'])}–{figure(spread['high'])})" if spread["runs"] > 1 else ""
    return f"{figure(spread['median'])}{'' if unit == '%' else ' '}{unit}{within}"


def comparison(result: dict[str, Any]) -> str:
    """The servers side by side: median, and lowest to highest repetition."""
    outcomes = result["outcomes"]
    rows = [
        [title, *(_cell(outcomes, scenario, name + suffix, metric, unit) for name in SERVERS)]
        for title, scenario, metric, unit, suffix in COMPARED
        if scenario in outcomes
    ]
    return _table(["", *(cls.title for cls in SERVERS.values())], rows)


def throughput(result: dict[str, Any]) -> str:
    """What was offered, what arrived, and at what cost."""
    rows = []
    for series, metrics in result["outcomes"].get("throughput", {}).get("figures", {}).items():
        name, _, rate = series.partition(" at ")
        values = {metric: spread["median"] for metric, spread in metrics.items()}
        lost = "all" if not values["missed"] else f"{figure(values['missed'])} not in time"
        rows.append(
            [
                SERVERS[name].title,
                f"{rate.removesuffix('/s')} events/s",
                f"{figure(values['delivered_per_second'])}/s",
                lost,
                f"{figure(values['latency_p50_ms'])} / {figure(values['latency_p99_ms'])} ms",
                f"{figure(values['cpu_us_per_delivery'])} µs",
                f"{values['cpu_percent']:.0f}% / {values['load_cpu_percent']:.0f}%",
            ]
        )
    return _table(
        [
            "server",
            "offered",
            "delivered",
            "of these",
            "p50 / p99",
            "CPU a delivery",
            "core of the server / of the load",
        ],
        rows,
    )


SERIES = (
    "scaling",
    "relay_cost",
    "distinct_filters",
    "region_streams",
    "stalled_readers",
    "facility_streams",
    "facility_cache",
    "company_streams",
)


def series(result: dict[str, Any]) -> str:
    """The medians of the scenarios that compare a server with itself."""
    parts = []
    for name in (name for name in SERIES if name in result["outcomes"]):
        outcome = result["outcomes"][name]
        metrics = list(dict.fromkeys(metric for figures in outcome["figures"].values() for metric in figures))
        rows = [
            [label, *(figure(figures[metric]["median"]) if metric in figures else "–" for metric in metrics)]
            for label, figures in outcome["figures"].items()
        ]
        parts.append(_table([outcome["title"], *(metric.replace("_", " ") for metric in metrics)], rows))
    return "\n\n".join(parts)


def _notes(result: dict[str, Any]) -> str:
    lines = [f"- {outcome['title']}: {note}" for outcome in result["outcomes"].values() for note in outcome["notes"]]
    return "\n".join(lines) or "- none"


def _machine(result: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in result["machine"].items())


def as_markdown(result: dict[str, Any]) -> str:
    """Everything between the markers of docs/benchmarks.md."""
    measured = sorted({outcome["measured_at"] for outcome in result["outcomes"].values()})
    when = measured[0] if len(set(measured)) == 1 else f"{measured[0]} to {measured[-1]}"
    return "\n\n".join(
        [
            f"Measured {when}. Machine: {_machine(result)}.",
            "### Targets",
            targets(result),
            "### Beside the floor and other servers",
            comparison(result),
            "### Throughput",
            throughput(result),
            "### Ringcast beside itself",
            series(result),
            "### Notes",
            _notes(result),
        ]
    )


def write_into(path: Path, markdown: str) -> None:
    """Replaces what is between the markers and nothing else."""
    before, _, rest = path.read_text().partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError(f"{path} has no markers {BEGIN} … {END}")
    path.write_text(f"{before}{BEGIN}\n\n{markdown}\n\n{END}{after}")
