"""Commands run in this process, without Ringcast variables and without waiting; servers that follow a script."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import click
import pytest
from click.testing import CliRunner, Result

from server.commands.backoff import Backoff
from tests.commands.scripted import Scripted
from tests.faults.conftest import scene_of_the_round

__all__ = ["scene_of_the_round"]

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith("RINGCAST_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def delays(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The least times that commands were asked to wait (the part that is not chance); they wait none of it."""
    asked: list[float] = []

    def delay(_backoff: Backoff, _failures: int, floor_seconds: float = 0.0) -> float:
        asked.append(floor_seconds)
        return 0.0

    monkeypatch.setattr(Backoff, "delay", delay)
    return asked


@pytest.fixture
def run() -> Run:
    """`run(command, *arguments, input=…)`: the command's exit code and what it wrote."""

    def invoke(command: click.Command, *arguments: str, input: bytes | None = None) -> Result:  # noqa: A002
        return CliRunner().invoke(command, arguments, input=input)

    return invoke


@pytest.fixture
def scripted() -> Iterator[Callable[..., Scripted]]:
    """`scripted(answer, …)`: a server that gives these answers, one to each connection."""
    started: list[Scripted] = []

    def start(*answers: bytes | None) -> Scripted:
        started.append(Scripted(*answers))
        return started[-1]

    yield start
    for server in started:
        server.close()
