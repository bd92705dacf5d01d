"""Settings of the application `monitors`. Owns their form."""

from __future__ import annotations

from config.fields import Group, PositiveSeconds, setting


class Monitors(Group):
    """The application `monitors`."""

    monitors_broadcast_seconds: PositiveSeconds = setting(5.0, "Longest wait of the worker for a broadcast.")
