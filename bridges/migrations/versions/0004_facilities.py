"""Facilities, and the index by which they are searched."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def _by_code_point(characters: int) -> sa.String:
    return sa.String(characters).with_variant(sa.String(characters, collation="C"), "postgresql")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "facilities",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("folded_name", _by_code_point(400), nullable=False),
        sa.Column("facility_type", sa.String(20), nullable=False),
        sa.Column("address", sa.String(200), nullable=False),
        sa.Column("city", sa.String(100), nullable=False),
        sa.Column("country", sa.String(2), nullable=False),
        sa.Column("phone", sa.String(40), nullable=False),
        sa.Column("latitude", sa.Float(53), nullable=False),
        sa.Column("longitude", sa.Float(53), nullable=False),
        sa.Column("capacity_status", sa.String(10), nullable=False),
        sa.Column("avg_wait_minutes", sa.Integer(), nullable=False),
        sa.Column("urgent_care_available", sa.Boolean(), nullable=False),
        sa.Column("service_health", sa.String(20), nullable=False),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("simulated", sa.Boolean(), nullable=False),
        sa.Column("updated_at", sa.String(20), nullable=False),
        sa.Column("insurance_providers", sa.Text(), nullable=False),
        sa.Column("prices", sa.Text(), nullable=False),
    )
    op.create_index("facilities_by_place", "facilities", ["latitude", "longitude"])
    op.create_index("facilities_by_name", "facilities", ["folded_name"])
    op.create_table(
        "facility_terms",
        sa.Column("term", _by_code_point(100), primary_key=True),
        sa.Column("facility_id", sa.String(16), sa.ForeignKey("facilities.id", ondelete="CASCADE"), primary_key=True),
    )
    op.create_index("facility_terms_by_facility", "facility_terms", ["facility_id"])
