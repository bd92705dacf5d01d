"""Peers: whose address a request counts for.

Owns the trust in `X-Forwarded-For`: believed only from configured proxies and from Unix sockets, read from the right,
past every trusted hop. Must never know of limits. Cost: nothing for a direct peer without the header.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Peers:
    """`trusted` are networks in CIDR notation. Raises ValueError for one that is not."""

    def __init__(self, trusted: Sequence[str]) -> None:
        self._trusted: list[Network] = [ipaddress.ip_network(network, strict=False) for network in trusted]

    def address(self, remote: str, forwarded_for: bytes | None) -> str:
        """The client's address. `remote` is the socket's peer, "" on a Unix socket."""
        if forwarded_for is None or (remote and not self._is_trusted(remote)):
            return remote
        hops = [hop.strip() for hop in forwarded_for.decode("latin-1").split(",")]
        client = remote
        for hop in reversed(hops):
            try:
                ipaddress.ip_address(hop)
            except ValueError:
                return client  # somebody made this up: the last hop that is an address counts
            client = hop
            if not self._is_trusted(hop):
                return client
        return client

    def _is_trusted(self, address: str) -> bool:
        if not self._trusted:
            return False
        try:
            parsed = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
            parsed = parsed.ipv4_mapped  # an IPv4 peer of a socket for both families
        return any(parsed in network for network in self._trusted)
