"""Settings of the application `companies`. Owns their form."""

from __future__ import annotations

from config.fields import Group, PositiveSeconds, setting


class Companies(Group):
    """The application `companies`."""

    companies_change_seconds: PositiveSeconds = setting(
        1.0, "With `simulate`: mean time between two events somewhere among the companies."
    )
