"""Settings of the application `prices`. Owns their form."""

from __future__ import annotations

from config.fields import Group, PositiveSeconds, setting


class Prices(Group):
    """The application `prices`."""

    prices_sync_seconds: PositiveSeconds = setting(60.0, "Time between two looks at the prices upstream.")
