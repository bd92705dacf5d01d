"""Settings of the application `prices`. Owns their form."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from pydantic import field_validator

from config.fields import Connections, Group, PositiveSeconds, PositiveShortSeconds, setting

_CONTACT = re.compile(r"[\x20-\x7e]{0,200}")


class Prices(Group):
    """The application `prices`."""

    prices_stream: bool = setting(True, "Offer the stream. Without it there is history by REST, and polling.")
    prices_max_clients: Connections = setting(
        0, "Most streams of prices on a node.", zero="as many as the node may have in all"
    )
    prices_upstream: str = setting(
        "",
        "Address of an API of the Old School RuneScape real-time prices' form, such as "
        "`https://prices.runescape.wiki/api/v1/osrs`. Without one there is a simulated market, if `simulate` is on.",
    )
    prices_contact: str = setting(
        "",
        "Whom the API's operators find in the `User-Agent`: an e-mail address or a URL.",
        why="They ask for it, and block clients that do not say who they are.",
    )
    prices_sync_seconds: PositiveSeconds = setting(60.0, "Time between two looks at the prices upstream.")
    prices_upstream_seconds: PositiveShortSeconds = setting(15.0, "Longest wait for an answer from upstream.")
    prices_keep_points_seconds: PositiveSeconds = setting(
        90_000.0,
        "How long each single change stays in the history. Older ones are averaged over five minutes, later over half "
        "an hour and over a day.",
        why="A day and an hour: charts of a day are made of single changes.",
    )
    prices_simulated_seconds: PositiveSeconds = setting(2.0, "Time between two looks at the simulated market.")

    @field_validator("prices_upstream")
    @classmethod
    def _check_upstream(cls, value: str) -> str:
        parts = urlsplit(value)
        if value and (parts.scheme not in ("http", "https") or not parts.hostname or "@" in value or parts.query):
            raise ValueError("must be an address such as https://prices.example/api/v1/osrs")
        return value.rstrip("/")

    @field_validator("prices_contact")
    @classmethod
    def _check_contact(cls, value: str) -> str:
        if not _CONTACT.fullmatch(value):
            raise ValueError("must be at most 200 characters of ASCII, without control characters")
        return value
