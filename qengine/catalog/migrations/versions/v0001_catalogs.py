"""Catalogues, their snapshots and the loads that published them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the first tables."""
    op.create_table(
        "catalogs",
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("folded_name", sa.String(128), nullable=False),
        sa.Column("latest", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_catalogs"),
        sa.UniqueConstraint("folded_name", name="uq_catalogs_folded_name"),
    )
    op.create_table(
        "loads",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("context", sa.Text, nullable=False),
        sa.Column("started", sa.DateTime, nullable=False),
        sa.Column("finished", sa.DateTime),
        sa.Column("error", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_loads"),
    )
    op.create_table(
        "snapshots",
        sa.Column("id", sa.Integer, autoincrement=True, nullable=False),
        sa.Column("catalog", sa.String(128), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("load_id", sa.String(32), nullable=False),
        sa.Column("published", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_snapshots"),
        sa.ForeignKeyConstraint(["catalog"], ["catalogs.name"], name="fk_snapshots_catalog"),
        sa.UniqueConstraint("catalog", "number", name="uq_snapshots_catalog"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "snapshot_tables",
        sa.Column("snapshot_id", sa.Integer, nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("manifest_uri", sa.Text, nullable=False),
        sa.Column("manifest_digest", sa.String(64), nullable=False),
        sa.Column("definition", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("snapshot_id", "name", name="pk_snapshot_tables"),
        sa.ForeignKeyConstraint(["snapshot_id"], ["snapshots.id"], name="fk_snapshot_tables_snapshot_id"),
    )


def downgrade() -> None:
    """Remove the tables."""
    for name in ("snapshot_tables", "snapshots", "loads", "catalogs"):
        op.drop_table(name)
