"""Addresses that requests named by strangers may go to, and those that they must not.

Owns the judgement of an address (S48). Must never know what is asked for there.

What is not known to be public is not: of IPv6 the one block that is given out to the public counts, and nothing else,
so a form that hides an IPv4 address is none of it but where a part of that block does so (6to4, Teredo). An address of
this very machine is not a stranger's, public or not: what listens here may be shut off from outside by a firewall that
does not see requests from within.

Cost: some comparisons; for a public address a socket that is connected and sends nothing.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _networks(texts: str) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts.split())


PUBLIC = _networks("0.0.0.0/0 2000::/3")
# Of these, what leads to this machine, its neighbours or nowhere, or hides an IPv4 address. What the registry does not
# call global is blocked too.
BLOCKED = _networks(
    "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.88.99.0/24 "
    "192.168.0.0/16 198.18.0.0/15 224.0.0.0/4 240.0.0.0/4 2001::/23 2002::/16 3fff::/20"
)
# What `allow_private` permits all the same: this machine's own and private networks.
PRIVATE = _networks("10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 172.16.0.0/12 192.168.0.0/16 ::1/128 fc00::/7")
# Where clouds keep a machine's secrets, and that is never permitted: link-local, and the places of Alibaba, Azure (a
# public address), Amazon and Google that are not.
SECRET = _networks("169.254.0.0/16 fe80::/10 100.100.100.200/32 168.63.129.16/32 fd00:ec2::/32 fd20:ce::/32")


def parsed(text: str) -> Address | None:
    """The address, None if it is none."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def is_permitted(text: str, *, allow_private: bool = False) -> bool:
    """True if requests may go to this address."""
    address = parsed(text)
    if address is None or (address.version == 6 and address.scope_id is not None) or _within(address, SECRET):
        return False
    if allow_private and _within(address, PRIVATE):
        return True
    if not _within(address, PUBLIC):
        return False
    if _is_own(address):
        return allow_private
    return address.is_global and not address.is_multicast and not _within(address, BLOCKED)


def _within(address: Address, networks: Iterable[Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)


def _is_own(address: Address) -> bool:
    """True for an address of this machine: what is sent there would come from there. Nothing is sent."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(address), 9))
            return parsed(probe.getsockname()[0]) == address
    except OSError:
        return False  # there is no way there at all
