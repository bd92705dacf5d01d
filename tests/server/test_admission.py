"""Admission: limits in all, per address, per subject and per second, and counts that come back to nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.admission import Admission, Holder, address_key
from server.endings import DRAINING, OVERLOADED, RATE_LIMITED, TOO_MANY
from tests.server.relay.bench import Clock


def admission(clock: Clock | None = None, *, max_connections: int = 100, **limits: float) -> Admission:
    return Admission(clock or Clock(), max_connections=max_connections, **limits)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("remote", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("", ""),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("a:b", "a:b"),
    ],
)
def test_one_address_is_an_ipv4_address_or_an_ipv6_network_of_64_bits(remote: str, key: str) -> None:
    assert address_key(remote) == key


def test_ipv4_clients_of_a_socket_for_both_families_are_different_addresses() -> None:
    assert address_key("::ffff:192.0.2.1") != address_key("::ffff:192.0.2.2")


def test_a_full_node_refuses_and_counts_it() -> None:
    one = admission(max_connections=2)
    held = [one.enter("192.0.2.1", "") for _ in range(2)]
    assert one.refusal("192.0.2.9", "") is OVERLOADED
    assert one.refused == {"overloaded": 1}
    one.leave(*held[0])
    assert one.refusal("192.0.2.9", "") is None


def test_an_address_that_holds_its_share_is_refused_and_others_are_not() -> None:
    one = admission(per_address=2)
    held = [one.enter("2001:db8::1", ""), one.enter("2001:db8::2", "")]
    assert one.refusal("2001:db8::3", "") is TOO_MANY
    assert one.refusal("2001:db8:0:1::1", "") is None
    one.leave(*held[0])
    assert one.refusal("2001:db8::3", "") is None


def test_a_subject_that_holds_its_share_is_refused_from_any_address() -> None:
    one = admission(per_subject=1)
    one.enter("192.0.2.1", "shop")
    assert one.refusal("192.0.2.2", "shop") is TOO_MANY
    assert one.refusal("192.0.2.2", "other") is None
    assert one.refusal("192.0.2.2", "") is None


def test_without_limits_one_address_may_hold_everything() -> None:
    one = admission(max_connections=1000)
    for _ in range(999):
        one.enter("192.0.2.1", "shop")
    assert one.refusal("192.0.2.1", "shop") is None


def test_a_draining_node_admits_nobody() -> None:
    one = admission()
    one.draining = True
    assert one.refusal("192.0.2.1", "") is DRAINING


def test_newcomers_come_in_a_burst_and_then_at_the_rate() -> None:
    clock = Clock()
    one = admission(clock, opens_per_second=2, opens_burst=3)
    assert [one.refusal("192.0.2.1", "") for _ in range(4)] == [None, None, None, RATE_LIMITED]
    clock.now += 0.5
    assert [one.refusal("192.0.2.1", "") for _ in range(2)] == [None, RATE_LIMITED]
    clock.now += 1000
    assert [one.refusal("192.0.2.1", "") for _ in range(4)] == [None, None, None, RATE_LIMITED]


def test_who_is_refused_for_another_reason_uses_up_no_rate() -> None:
    one = admission(per_address=1, opens_per_second=1, opens_burst=1)
    one.enter("192.0.2.1", "")
    for _ in range(5):
        assert one.refusal("192.0.2.1", "") is TOO_MANY
    assert one.refusal("192.0.2.2", "") is None


def test_readers_of_one_address_and_subject_share_what_counts_them() -> None:
    one = admission()
    assert one.enter("192.0.2.1", "shop") == one.enter("192.0.2.1", "shop")
    assert one.enter("192.0.2.1", "")[1] is None
    assert one.addresses == 1


@given(
    st.lists(st.tuples(st.sampled_from(["10.0.0.1", "10.0.0.2", "2001:db8::1"]), st.sampled_from(["", "x", "y"]))),
    st.randoms(),
)
def test_the_counts_are_what_is_held_and_nothing_is_left_in_the_end(
    visitors: list[tuple[str, str]], chance: object
) -> None:
    one = admission()
    here: list[tuple[Holder, Holder | None]] = []
    for visitor in visitors:
        here.append(one.enter(*visitor))
        if chance.random() < 0.4:  # type: ignore[attr-defined]
            one.leave(*here.pop(chance.randrange(len(here))))  # type: ignore[attr-defined]
        assert one.held == len(here) == sum(holder.held for holder in {address for address, _ in here})
        assert one.addresses == len({address.key for address, _ in here})
    for both in here:
        one.leave(*both)
    assert (one.held, one.addresses, one._subjects) == (0, 0, {})
