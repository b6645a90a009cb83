"""Users, tokens, groups, grants and the log of queries."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_BIG_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")
"""Of a key that counts by itself: SQLite counts plain integers only."""


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "users",
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("password", sa.Text, nullable=False),
        sa.Column("is_admin", sa.Boolean, nullable=False),
        sa.Column("is_disabled", sa.Boolean, nullable=False),
        sa.Column("made", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_users"),
    )
    op.create_table(
        "members",
        sa.Column("user_name", sa.String(128), nullable=False),
        sa.Column("group_name", sa.String(128), nullable=False),
        sa.PrimaryKeyConstraint("user_name", "group_name", name="pk_members"),
    )
    op.create_table(
        "tokens",
        sa.Column("id", sa.String(16), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("owner", sa.String(128), nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("made", sa.DateTime, nullable=False),
        sa.Column("expires", sa.DateTime),
        sa.Column("used", sa.DateTime),
        sa.PrimaryKeyConstraint("id", name="pk_tokens"),
        sa.UniqueConstraint("hash", name="uq_tokens_hash"),
        sa.ForeignKeyConstraint(["owner"], ["users.name"], name="fk_tokens_owner"),
    )
    op.create_index("ix_tokens_owner", "tokens", ["owner"])
    op.create_table(
        "grants",
        sa.Column("folded_catalog", sa.String(128), nullable=False),
        sa.Column("folded_table", sa.String(128), nullable=False),
        sa.Column("grantee", sa.String(160), nullable=False),
        sa.Column("catalog", sa.String(128), nullable=False),
        sa.Column("table_name", sa.String(128), nullable=False),
        sa.Column("made", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("folded_catalog", "folded_table", "grantee", name="pk_grants"),
    )
    op.create_table(
        "rights_changes",
        sa.Column("id", sa.Integer, nullable=False, autoincrement=True),
        sa.Column("at", sa.DateTime, nullable=False),
        sa.Column("by_whom", sa.String(256), nullable=False),
        sa.Column("what", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_rights_changes"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "queries",
        sa.Column("number", _BIG_NUMBER, nullable=False, autoincrement=True),
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("user_name", sa.String(128), nullable=False),
        sa.Column("method", sa.String(32), nullable=False),
        sa.Column("client", sa.Text, nullable=False),
        sa.Column("language", sa.String(32), nullable=False),
        sa.Column("statement", sa.Text, nullable=False),
        sa.Column("started", sa.DateTime, nullable=False),
        sa.Column("duration_s", sa.Float, nullable=False),
        sa.Column("row_count", sa.BigInteger, nullable=False),
        sa.Column("byte_count", sa.BigInteger, nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("error_code", sa.String(64), nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("snapshots", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_queries"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_queries_user", "queries", ["user_name", "started"])
    op.create_index("ix_queries_started", "queries", ["started"])


def downgrade() -> None:
    """Forget them."""
    for table in ("queries", "rights_changes", "grants", "tokens", "members", "users"):
        op.drop_table(table)
