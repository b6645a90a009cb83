"""Measured rates of scans, joins, dispatch and export, for estimates of time."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the table of rates."""
    op.create_table(
        "rates",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("value", sa.Float, nullable=False),
        sa.Column("weight_s", sa.Float, nullable=False),
        sa.Column("updated", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_rates"),
    )


def downgrade() -> None:
    """Remove it."""
    op.drop_table("rates")
