"""Whether an address is reachable from this machine only.

Pure: no name is looked up, so a name other than `localhost` is not loopback.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache


@lru_cache(1024)  # asked for every connection, about few addresses
def is_loopback(host: str) -> bool:
    """True for `localhost`, 127.0.0.0/8 and ::1, and for the former as a socket of both families names them."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
