"""Tags, states of catalogues, expired snapshots, leases and budgets."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "tags",
        sa.Column("catalog", sa.String(128), nullable=False),
        sa.Column("folded_name", sa.String(128), nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("doi", sa.Text, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("made", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("catalog", "folded_name", name="pk_tags"),
        sa.ForeignKeyConstraint(["catalog"], ["catalogs.name"], name="fk_tags_catalog"),
    )
    op.create_table(
        "catalog_states",
        sa.Column("catalog", sa.String(128), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("groups", sa.Text, nullable=False),
        sa.Column("changed", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("catalog", name="pk_catalog_states"),
        sa.ForeignKeyConstraint(["catalog"], ["catalogs.name"], name="fk_catalog_states_catalog"),
    )
    op.create_table(
        "expired",
        sa.Column("catalog", sa.String(128), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("at", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("catalog", "number", name="pk_expired"),
        sa.ForeignKeyConstraint(["catalog"], ["catalogs.name"], name="fk_expired_catalog"),
    )
    op.create_table(
        "leases",
        sa.Column("holder", sa.String(64), nullable=False),
        sa.Column("catalog", sa.String(128), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("until", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("holder", "catalog", "number", name="pk_leases"),
    )
    op.create_table(
        "budgets",
        sa.Column("catalog", sa.String(128), nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("catalog", name="pk_budgets"),
    )


def downgrade() -> None:
    """Forget them."""
    for name in ("budgets", "leases", "expired", "catalog_states", "tags"):
        op.drop_table(name)
