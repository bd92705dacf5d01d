"""The pictures of docs/benchmarks.md. `python -m benchmarks.plots` draws them anew from results/latest.json."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from benchmarks import results
from benchmarks.servers import SERVERS
from benchmarks.tables import figure

Figures = dict[str, dict[str, dict[str, float]]]
COLOURS = {"ringcast": "#0b6e4f", "floor": "#8d99ae", "nchan": "#e09f3e", "tornado": "#5b7fb5", "starlette": "#9e4f6b"}
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
    "legend.frameon": False,
}


def _figures(result: dict[str, Any], scenario: str) -> Figures:
    return dict(result["outcomes"].get(scenario, {}).get("figures", {}))


def _bars(axes: Axes, figures: Figures, metric: str, title: str, unit: str, *, log: bool = False) -> None:
    """A bar for each server, its median written at its end, lowest to highest as a thin line."""
    names = [name for name in SERVERS if metric in figures.get(name, {})]
    spreads = [figures[name][metric] for name in names]
    medians = [spread["median"] for spread in spreads]
    errors = [[s["median"] - s["low"] for s in spreads], [s["high"] - s["median"] for s in spreads]]
    rows = range(len(names))
    axes.barh(
        rows,
        medians,
        height=0.62,
        color=[COLOURS[name] for name in names],
        xerr=errors,
        ecolor="#444444",
        error_kw={"lw": 1},
    )
    axes.set_yticks(rows, [SERVERS[name].title for name in names])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_title(title)
    axes.set_xlabel(unit + (", logarithmic" if log else ""))
    _scale(axes, max(medians), log=log)
    for row, spread in zip(rows, spreads, strict=True):
        axes.annotate(
            figure(spread["median"]),
            (max(spread["high"], 1e-3), row),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
        )


def _scale(axes: Axes, longest: float, *, log: bool) -> None:
    """Room for the figure at the end of the longest bar."""
    if log:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_xlim(right=longest * 6)
    else:
        axes.set_xlim(right=longest * 1.22)


def draw_cost(result: dict[str, Any]) -> Figure:
    """CPU per delivery and per opening."""
    picture, (left, right) = pyplot.subplots(1, 2, figsize=(10, 3.2))
    _bars(left, _figures(result, "delivery_cost"), "cpu_us_per_delivery", "CPU per delivery, one event at a time", "µs")
    _bars(right, _figures(result, "opening_cost"), "open_cpu_us", "CPU per new connection", "µs")
    right.set_yticklabels([])
    return picture


def draw_memory(result: dict[str, Any]) -> Figure:
    """Memory of an idle connection."""
    picture, axes = pyplot.subplots(figsize=(7, 3))
    _bars(
        axes,
        _figures(result, "idle_memory"),
        "memory_per_reader_kb",
        "Process memory per idle connection",
        "KB",
        log=True,
    )
    return picture


def _steps(figures: Figures, server: str, between: str, metric: str) -> list[tuple[float, float]]:
    """The points of a series whose names are `SERVER at NUMBER`."""
    found = []
    for name, metrics in figures.items():
        if name.startswith(server + between) and metric in metrics:
            found.append((float(name.removeprefix(server + between).removesuffix("/s")), metrics[metric]["median"]))
    return sorted(found)


def _thousands(value: float, _position: object) -> str:
    if value >= 1e6:
        return f"{value / 1e6:g} M"
    return f"{value / 1e3:g} k" if value >= 1e3 else f"{value:g}"


def draw_throughput(result: dict[str, Any]) -> Figure:
    """Offered against delivered; the diagonal is everything in time."""
    figures = _figures(result, "throughput")
    readers = max((run["opened"] for run in result["outcomes"]["throughput"]["runs"]), default=1)
    picture, axes = pyplot.subplots(figsize=(7, 4.6))
    lines = {name: _steps(figures, name, " at ", "delivered_per_second") for name in SERVERS}
    offered = [rate * readers for points in lines.values() for rate, _ in points]
    axes.plot(
        [min(offered), max(offered)], [min(offered), max(offered)], ls=":", color="#999999", lw=1, label="all in time"
    )
    for name, points in lines.items():
        if points:
            x, y = [rate * readers for rate, _ in points], [value for _, value in points]
            axes.plot(
                x, y, marker="o", color=COLOURS[name], label=SERVERS[name].title, lw=2 if name == "ringcast" else 1.4
            )
    axes.set(xscale="log", yscale="log", xlabel="deliveries a second offered", ylabel="deliveries a second made")
    axes.set_title(f"Throughput of one process on one core, {readers:,.0f} readers")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(_thousands))
        axis.set_minor_formatter(NullFormatter())
    axes.legend()
    return picture


def draw_latency(result: dict[str, Any]) -> Figure:
    """Percentiles from publish to receipt."""
    figures = _figures(result, "latency")
    shares = ("p50", "p90", "p99", "p999", "max")
    picture, axes = pyplot.subplots(figsize=(8.6, 3.8))
    for name in (name for name in SERVERS if name in figures):
        values = [figures[name][f"latency_{share}_ms"]["median"] for share in shares]
        axes.plot(
            range(len(shares)),
            values,
            marker="o",
            color=COLOURS[name],
            label=SERVERS[name].title,
            lw=2 if name == "ringcast" else 1.4,
        )
    axes.set_xticks(range(len(shares)), ["p50", "p90", "p99", "p99.9", "highest"])
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set(ylabel="ms, logarithmic")
    axes.set_title("Publish to receipt, 100 readers, 50 events/s")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return picture


def draw_scaling(result: dict[str, Any]) -> Figure:
    """Cost of a delivery by the number of readers."""
    figures = _figures(result, "scaling")
    picture, axes = pyplot.subplots(figsize=(7, 3.6))
    for name in SERVERS:
        if points := _steps(figures, name, " at ", "cpu_us_per_delivery"):
            x, y = zip(*points, strict=True)
            axes.plot(
                x, y, marker="o", color=COLOURS[name], label=SERVERS[name].title, lw=2 if name == "ringcast" else 1.4
            )
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set(xlabel="readers", ylabel="µs")
    axes.set_title("CPU per delivery by number of readers")
    axes.legend(loc="lower right")
    return picture


PICTURES: dict[str, tuple[str, Callable[[dict[str, Any]], Figure]]] = {
    "bench-cost.png": ("delivery_cost", draw_cost),
    "bench-memory.png": ("idle_memory", draw_memory),
    "bench-throughput.png": ("throughput", draw_throughput),
    "bench-latency.png": ("latency", draw_latency),
    "bench-scaling.png": ("scaling", draw_scaling),
}


def draw_all(result: dict[str, Any], folder: Path) -> None:
    """Every picture whose scenario has figures."""
    folder.mkdir(parents=True, exist_ok=True)
    with pyplot.rc_context(STYLE):
        for name, (scenario, draw) in PICTURES.items():
            if _figures(result, scenario):
                picture = draw(result)
                picture.tight_layout()
                picture.savefig(folder / name, dpi=140, metadata={"Software": None})
                pyplot.close(picture)


if __name__ == "__main__":
    draw_all(results.load(results.FOLDER / "latest.json"), Path(__file__).parents[1] / "docs" / "images")
