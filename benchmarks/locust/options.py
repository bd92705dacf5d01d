"""The load test's own command-line options, shown by `locust --help` under "Ringcast". Owns their names, defaults and
units.
"""

from __future__ import annotations

import argparse
from typing import Any

from locust import events


@events.init_command_line_parser.add_listener
def add(parser: argparse.ArgumentParser, **_: Any) -> None:
    """Add the options. Each can also come from the environment, as LOCUST_ and its name."""
    group = parser.add_argument_group("Ringcast")
    load = {
        "channel": (str, "main", "the channel that is read and published to"),
        "topics": (int, 1, "how many topics the events are spread over; a reader subscribes to one"),
        "publishers": (int, 10, "how many of the users publish; all others read"),
        "publish-rate": (float, 1.0, "events a second from each publisher"),
        "data-bytes": (int, 128, "size of an event's data"),
        "stage-scale": (float, 1.0, "with stages: each takes so many times its length"),
        "silence-seconds": (float, 75.0, "a reader reconnects after so long without a byte"),
        "grace-seconds": (float, 5.0, "at the end readers wait so long for what is under way"),
        "bearer-token": (str, "", "a JWT that may publish and subscribe; empty: none is sent"),
    }
    limits = {
        "max-p95-ms": (float, 500.0, "95 % of the events must arrive within this"),
        "max-losses": (int, 0, "events that may be missing, repeated or out of order without a declared gap"),
        "max-gaps": (int, 0, "gaps that may be declared"),
        "max-errors": (int, 0, "streams refused and publishes failed"),
        "min-events": (int, 1, "events that must have arrived at all"),
    }
    for name, (kind, default, text) in (load | limits).items():
        variable = "LOCUST_" + name.upper().replace("-", "_")
        group.add_argument(f"--{name}", type=kind, default=default, help=f"{text} ({default})", env_var=variable)  # type: ignore[call-arg]
