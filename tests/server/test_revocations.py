"""Revocations: marks, how long they hold, and their bound."""

from __future__ import annotations

import pytest

import server.revocations
from server.revocations import Revocations, mark_of


def test_a_mark_holds_until_its_time_is_over() -> None:
    revoked = Revocations()
    assert not revoked.holds(["subject alice"], 100.0)
    revoked.add("subject alice", 200.0)
    assert revoked.holds(["token x", "subject alice"], 199.9)
    assert not revoked.holds(["subject alice"], 200.0)
    assert not revoked.holds(["token alice"], 100.0)
    assert not revoked.holds([], 100.0)


def test_a_topic_is_any_that_can_be_selected_by_name() -> None:
    longest = "é" * 2048
    assert mark_of("topic", longest) == f"topic {longest}"
    assert mark_of("topic", "orders/{id}") == "topic orders/{id}"  # the text, not what it matches
    for text in ("", "*", "a\nb", longest + "x"):
        with pytest.raises(ValueError, match="must"):
            mark_of("topic", text)


def test_a_topic_is_no_holder_of_the_same_name() -> None:
    revoked = Revocations()
    revoked.add(mark_of("topic", "alice"), 200.0)
    assert revoked.holds(["topic alice"], 100.0)
    assert not revoked.holds(["token alice", "subject alice", "tenant alice"], 100.0)


def test_a_second_revocation_never_shortens_the_first() -> None:
    revoked = Revocations()
    revoked.add("subject alice", 200.0)
    revoked.add("subject alice", 150.0)
    assert revoked.holds(["subject alice"], 199.0)


def test_what_is_over_is_forgotten() -> None:
    revoked = Revocations()
    revoked.add("subject alice", 200.0)
    revoked.add("subject bob", 300.0)
    revoked.expire(250.0)
    assert len(revoked) == 1
    assert revoked.holds(["subject bob"], 250.0)


def test_marks_are_bounded_and_the_one_that_ends_first_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.revocations, "MAX_REVOKED", 2)
    revoked = Revocations()
    for name, until in (("a", 300.0), ("b", 100.0), ("c", 200.0)):
        revoked.add(f"subject {name}", until)
    assert [revoked.holds([f"subject {name}"], 50.0) for name in "abc"] == [True, False, True]


@pytest.mark.parametrize(
    ("kind", "value"), [("subjects", "a"), ("subject", ""), ("subject", "a\n"), ("token", "x" * 257)]
)
def test_what_is_no_mark_is_an_error(kind: str, value: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        mark_of(kind, value)
