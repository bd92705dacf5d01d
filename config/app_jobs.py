"""Settings of the application `jobs`. Owns their form."""

from __future__ import annotations

from config.fields import Group, PositiveCount, PositiveSeconds, setting


class Jobs(Group):
    """The application `jobs`."""

    jobs_keep_seconds: PositiveSeconds = setting(86_400.0, "How long a finished job is kept.")
    jobs_per_minute: PositiveCount = setting(60, "Most jobs that one owner may start in a minute.")
    jobs_abandoned_seconds: PositiveSeconds = setting(
        60.0, "A job whose worker says nothing for so long is given to another."
    )
