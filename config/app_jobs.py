"""Settings of the application `jobs`. Owns their form."""

from __future__ import annotations

from config.fields import Group, PositiveSeconds, setting


class Jobs(Group):
    """The application `jobs`."""

    jobs_keep_seconds: PositiveSeconds = setting(86400.0, "How long a finished job is kept.")
