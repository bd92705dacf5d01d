"""Settings of the application `facilities`. Owns their form."""

from __future__ import annotations

from config.fields import Group, PositiveSeconds, setting


class Facilities(Group):
    """The application `facilities`."""

    facilities_change_seconds: PositiveSeconds = setting(2.0, "Time between two simulated changes.")
