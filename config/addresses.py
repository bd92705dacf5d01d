"""Addresses in settings: networks of those who are trusted. Owns their form."""

from __future__ import annotations

import ipaddress


def check_networks(values: list[str]) -> list[str]:
    """Networks (CIDR), or single addresses. Raises ValueError."""
    for value in values:
        try:
            ipaddress.ip_network(value)
        except ValueError:
            raise ValueError(f"{value!r} is not a network such as 10.0.0.0/8 or 192.0.2.7") from None
    return values
