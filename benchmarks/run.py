"""`python -m benchmarks.run [--quick] [--only NAME]…`: measure, then write JSON, the table and the plots.

Exit status 1 means that something could not be measured or that events were lost; with `--strict` also that a target
was missed, which on another machine may say more about the machine. `--quick` takes less than a minute at reduced
sizes, writes results/quick.json and prints its table, and leaves the documents alone.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType

from benchmarks import machine, results, tables
from benchmarks.lab import EVERYBODY, Lab
from benchmarks.outcome import Outcome
from benchmarks.scenarios import ALL, SLOW
from benchmarks.storm import build

DOCUMENT = Path(__file__).parents[1] / "docs" / "benchmarks.md"
NAMES = [scenario.NAME for scenario in ALL]


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.run", description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="reduced sizes, one repetition, within a minute")
    parser.add_argument(
        "--only", action="append", choices=NAMES, metavar="NAME", help=f"may repeat: {', '.join(NAMES)}"
    )
    parser.add_argument("--servers", default=",".join(EVERYBODY), help="which servers to compare, with commas")
    parser.add_argument("--repetitions", type=int, help="of each measurement (3; quick: 1)")
    parser.add_argument("--strict", action="store_true", help="a missed target is an error too, not lost events alone")
    parser.add_argument("--no-write", action="store_true", help="print the table only")
    return parser.parse_args(words)


def measure(lab: Lab, names: list[str]) -> list[Outcome]:
    """The scenarios in their order; a server that failed is part of the outcome."""
    outcomes = []
    for scenario in (scenario for scenario in ALL if scenario.NAME in names):
        began = time.monotonic()
        lab.say(f"{scenario.NAME}: {scenario.TITLE}")
        lab.trouble.clear()
        outcome = scenario.run(lab)
        for server, text in lab.trouble:
            (outcome.failures if server == "ringcast" else outcome.notes).append(f"{server}: {text}")
        verdict = "pass" if outcome.passed else "FAIL"
        checks = ", ".join(f"{check.what} {tables.figure(check.measured)} {check.unit}" for check in outcome.checks)
        lab.say(f"  {verdict}: {checks or 'nothing measured'} [{time.monotonic() - began:.0f} s]")
        outcomes.append(outcome)
    return outcomes


def write(outcomes: list[Outcome], options: argparse.Namespace) -> None:
    """Results to their files; the whole benchmark also to the documents."""
    path = results.FOLDER / ("quick.json" if options.quick else "latest.json")
    result = results.merge(results.load(path), outcomes, machine.facts(), NAMES)
    if options.quick or options.no_write:
        print("\n" + tables.targets(results.merge({"machine": {}, "outcomes": {}}, outcomes, {}, NAMES)))
    if options.no_write:
        return
    results.save(path, result)
    if not options.quick:
        from benchmarks import plots  # matplotlib takes a second that a quick run has not

        tables.write_into(DOCUMENT, tables.as_markdown(result))
        plots.draw_all(result, DOCUMENT.parent / "images")


def stop(_signal: int, _frame: FrameType | None) -> None:
    """Leave through the `with` blocks, so that every server is stopped."""
    sys.exit(130)


def say(line: str) -> None:
    """Progress, at once also through a pipe."""
    print(line, flush=True)


def main(words: list[str] | None = None) -> int:
    options = arguments(words)
    signal.signal(signal.SIGTERM, stop)
    with tempfile.TemporaryDirectory(prefix="ringcast-bench-") as name:
        folder = Path(name)
        lab = Lab(
            folder,
            build(folder),
            quick=options.quick,
            wanted=options.servers.split(","),
            say=say,
            repetitions=options.repetitions or (1 if options.quick else 3),
        )
        outcomes = measure(lab, options.only or [one.NAME for one in ALL if not (options.quick and one in SLOW)])
    write(outcomes, options)
    sound = all(outcome.passed if options.strict else not outcome.failures for outcome in outcomes)
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
