"""Settings of what runs beside the streams. Owns their form; the server does what they say."""

from __future__ import annotations

from typing import Literal

from config.fields import Group, PositiveShortSeconds, setting


class Operation(Group):
    """What runs beside the streams, and what is written down."""

    config: str | None = setting(None, "Path of a YAML file with settings (also `--config`).")
    host_source: bool = setting(
        True, "Publish this machine's own figures (CPU, memory, network, sockets) on the channel `host`."
    )
    host_source_seconds: PositiveShortSeconds = setting(1.0, "Time between two such events.")
    console: bool = setting(True, "Serve the page at `/`: a live tail, a publish form and live figures.")
    log_format: Literal["json", "console", "auto"] = setting(
        "auto", "Form of a log line; `auto` is `console` on a terminal and `json` otherwise."
    )
    log_level: Literal["debug", "info", "warning", "error"] = setting(
        "info", "Least weight of a message that is logged."
    )
