"""Settings of the application `facilities`. Owns their form."""

from __future__ import annotations

from config.fields import Group, PositiveSeconds, setting


class Facilities(Group):
    """The application `facilities`."""

    facilities_change_seconds: PositiveSeconds = setting(
        1.0, "With `simulate`: mean time between two changes somewhere among the facilities."
    )
