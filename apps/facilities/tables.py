"""The tables of `facilities`. Owns their form; bridges/migrations/versions/0004_facilities.py makes them.

The search index is a table of its own: which facility has which word. Words are compared by code point on every
database, for ranges of them are prefixes.
"""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Float, ForeignKey, Index, Integer, String, Table, Text

from bridges.database import metadata

MAX_TERM_CHARACTERS = 100
MAX_NAME_CHARACTERS = 400  # folded, a name may be longer than it was


def _by_code_point(characters: int) -> String:
    return String(characters).with_variant(String(characters, collation="C"), "postgresql")


# `folded_name` is what lists are sorted by; lists and prices are JSON.
facilities = Table(
    "facilities",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("name", String(200), nullable=False),
    Column("folded_name", _by_code_point(MAX_NAME_CHARACTERS), nullable=False),
    Column("facility_type", String(20), nullable=False),
    Column("address", String(200), nullable=False),
    Column("city", String(100), nullable=False),
    Column("country", String(2), nullable=False),
    Column("phone", String(40), nullable=False),
    Column("latitude", Float(53), nullable=False),
    Column("longitude", Float(53), nullable=False),
    Column("capacity_status", String(10), nullable=False),
    Column("avg_wait_minutes", Integer, nullable=False),
    Column("urgent_care_available", Boolean, nullable=False),
    Column("service_health", String(20), nullable=False),
    Column("currency", String(3), nullable=False),
    Column("simulated", Boolean, nullable=False),
    Column("updated_at", String(20), nullable=False),
    Column("insurance_providers", Text, nullable=False),
    Column("prices", Text, nullable=False),
    Index("facilities_by_place", "latitude", "longitude"),
    Index("facilities_by_name", "folded_name"),
)

terms = Table(
    "facility_terms",
    metadata,
    Column("term", _by_code_point(MAX_TERM_CHARACTERS), primary_key=True),
    Column("facility_id", String(16), ForeignKey("facilities.id", ondelete="CASCADE"), primary_key=True),
    Index("facility_terms_by_facility", "facility_id"),
)
