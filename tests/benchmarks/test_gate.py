"""Several load generators at once: one publishes, the others only hold readers, and all know what must arrive."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from benchmarks.storm import Programs, command_line
from tests.benchmarks.conftest import Script, Storm


def test_a_silent_process_accounts_for_what_another_publishes(programs: Programs, storm: Storm, script: Script) -> None:
    server = script()
    options: dict[str, Any] = {
        "to": server.address,
        "path": "/events?n=10{n}&group=0",
        "readers": 3,
        "count": 12,
        "rate": 400,
        "publishers": 2,
        "silent": True,
        "gate": True,
        "settle_seconds": 0,
        "linger_seconds": 20,
    }
    command = command_line(programs.storm, options)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as silent:
        assert silent.stdout is not None
        assert silent.stdout.readline() == "open\n"
        assert storm(server, readers=2, count=12, publishers=2)["delivered"] == 24
        report = json.loads(silent.communicate("go\n", timeout=30)[0])
    assert (report["expected"], report["delivered"], report["missed"]) == (36, 36, 0)
    assert (report["repeated"], report["disordered"]) == (0, 0)
