"""Ids: one form, which sorts as text and reads back as what was written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.ids import EARLIEST, format_id, new_epoch, parse_id

EPOCHS = st.text("0123456789abcdefghijklmnopqrstuvwxyz", min_size=6, max_size=6)
POSITIONS = st.integers(0, 16**13 - 1)


@given(EPOCHS, POSITIONS)
def test_an_id_reads_back_as_epoch_and_position(epoch: str, position: int) -> None:
    assert parse_id(format_id(epoch, position)) == (epoch, position)


@given(EPOCHS, POSITIONS, POSITIONS)
def test_ids_of_one_epoch_sort_as_text(epoch: str, one: int, other: int) -> None:
    assert (format_id(epoch, one) < format_id(epoch, other)) == (one < other)


def test_the_form_is_the_one_of_the_protocol() -> None:
    assert format_id("k3x9q1", 0x6440F3A1B2C3D) == "k3x9q1-6440f3a1b2c3d"


def test_the_form_lasts_until_2112() -> None:
    in_2112 = (2112 - 1970) * 365 * 86_400 * 1_000_000
    assert parse_id(format_id("k3x9q1", in_2112)) == ("k3x9q1", in_2112)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "earliest",
        "k3x9q1-6440f3a1b2c3",
        "k3x9q1-6440f3a1b2c3d0",
        "k3x9q-6440f3a1b2c3d",
        "K3X9Q1-6440f3a1b2c3d",
        "k3x9q1-6440F3A1B2C3D",
        "k3x9q1_6440f3a1b2c3d",
        "k3x9q1-6440f3a1b2c3d\n",
        " k3x9q1-6440f3a1b2c3d",
        "k3x9q1-6440f3a1b2c3٣",
        "k3x9q1-x440f3a1b2c3d",
    ],
)
def test_any_other_text_is_no_id(text: str) -> None:
    assert parse_id(text) is None


@given(st.text())
def test_parsing_takes_any_text(text: str) -> None:
    found = parse_id(text)
    assert found is None or format_id(*found) == text


def test_an_epoch_is_six_characters_and_new_each_time() -> None:
    epochs = {new_epoch() for _ in range(1000)}
    assert len(epochs) > 990
    assert all(parse_id(f"{epoch}-{0:013x}") for epoch in epochs)


def test_the_word_for_the_beginning_is_no_id() -> None:
    assert parse_id(EARLIEST) is None
