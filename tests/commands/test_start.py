"""How much of the program a command loads: what it needs to begin, and no more."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.harness.process import ROOT

RUN = "import sys; from server.__main__ import cli; cli(sys.argv[1:], standalone_mode=False); print(*sys.modules)"


def loaded(*arguments: str) -> set[str]:
    """The modules that are there when `ringcast` has done what these arguments say."""
    run = subprocess.run([sys.executable, "-c", RUN, *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(run.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("arguments", [["--version"], ["publish", "--help"], ["tail", "--help"], ["serve", "--help"]])
def test_a_command_that_serves_nothing_loads_no_server(arguments: list[str]) -> None:
    modules = loaded(*arguments)
    assert "click" in modules
    assert modules & {"tornado", "uvloop", "pydantic", "jwt", "structlog", "server.node", "handlers"} == set()


def test_the_help_names_every_command() -> None:
    command = [sys.executable, "-m", "server", "--help"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for name in ("check-config", "publish", "serve", "tail", "token"):
        assert f"  {name} " in run.stdout
