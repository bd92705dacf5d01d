"""Whose address a request counts for: `X-Forwarded-For` is believed from the right, and only from those we trust."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.peers import Peers

PROXIES = Peers(["10.0.0.0/8", "2001:db8::/32", "127.0.0.1"])


@pytest.mark.parametrize(
    ("remote", "forwarded_for", "address"),
    [
        ("192.0.2.1", None, "192.0.2.1"),
        ("10.0.0.1", None, "10.0.0.1"),
        ("192.0.2.1", b"203.0.113.5", "192.0.2.1"),  # a stranger says so
        ("10.0.0.1", b"203.0.113.5", "203.0.113.5"),
        ("10.0.0.1", b"1.2.3.4, 203.0.113.5", "203.0.113.5"),  # the left part is what the client made up
        ("10.0.0.1", b"203.0.113.5, 10.0.0.2", "203.0.113.5"),
        ("10.0.0.1", b"203.0.113.5,10.0.0.3 , 10.0.0.2", "203.0.113.5"),
        ("10.0.0.1", b"10.0.0.4, 10.0.0.2", "10.0.0.4"),
        ("10.0.0.1", b"", "10.0.0.1"),
        ("10.0.0.1", b"nonsense", "10.0.0.1"),
        ("10.0.0.1", b"203.0.113.5, nonsense, 10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", b"203.0.113.5:1234", "10.0.0.1"),
        ("10.0.0.1", b"\xff\xfe", "10.0.0.1"),
        ("2001:db8::1", b"2001:db9::7", "2001:db9::7"),
        ("127.0.0.1", b"203.0.113.5", "203.0.113.5"),
        ("fe80::1%eth0", b"203.0.113.5", "fe80::1%eth0"),
        ("", b"203.0.113.5", "203.0.113.5"),  # a Unix socket: only a proxy of this machine gets there
        ("", None, ""),
        ("", b"nonsense", ""),
    ],
)
def test_the_address_is_the_last_that_was_not_added_by_somebody_we_trust(
    remote: str, forwarded_for: bytes | None, address: str
) -> None:
    assert PROXIES.address(remote, forwarded_for) == address


def test_without_trusted_networks_the_header_is_believed_from_unix_sockets_alone() -> None:
    nobody = Peers([])
    assert nobody.address("127.0.0.1", b"203.0.113.5") == "127.0.0.1"
    assert nobody.address("", b"198.51.100.1, 203.0.113.5") == "203.0.113.5"


def test_a_trusted_ipv4_proxy_is_trusted_on_a_socket_for_both_families_too() -> None:
    assert PROXIES.address("::ffff:10.0.0.1", b"203.0.113.5") == "203.0.113.5"


def test_a_zone_does_not_make_an_address_a_stranger() -> None:
    assert Peers(["fe80::/10"]).address("fe80::1%eth0", b"203.0.113.5") == "203.0.113.5"


@pytest.mark.parametrize("network", ["10.0.0.0/33", "nonsense", "", "10.0.0.256"])
def test_a_network_that_is_none_is_refused(network: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        Peers([network])


def test_a_network_may_be_written_with_a_hosts_bits() -> None:
    assert Peers(["10.1.2.3/8"]).address("10.9.9.9", b"203.0.113.5") == "203.0.113.5"


@given(st.binary(max_size=60))
def test_whatever_a_proxy_sends_an_address_or_the_proxy_comes_out(header: bytes) -> None:
    found = PROXIES.address("10.0.0.1", header)
    assert found == "10.0.0.1" or found.encode("latin-1") in header
