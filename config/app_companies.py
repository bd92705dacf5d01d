"""Settings of the application `companies`. Owns their form."""

from __future__ import annotations

from typing import Literal

from config.bridges import NatsName
from config.fields import Group, PositiveSeconds, setting


class Companies(Group):
    """The application `companies`."""

    companies_streaming: bool = setting(
        True, "Stream the events of companies that have no flag of their own in the database."
    )
    companies_nats_stream: NatsName | Literal[""] = setting(
        "",
        "The stream of JetStream that messages are read from, made if it is not there; empty: core NATS.",
        why="JetStream keeps messages while no node is there, and their order; core NATS does neither.",
    )
    companies_change_seconds: PositiveSeconds = setting(
        1.0, "With `simulate`: mean time between two events somewhere among the companies."
    )
