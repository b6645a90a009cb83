"""What the queries of users take at each process of a service, so that limits hold for all together."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "demands",
        sa.Column("process", sa.String(64), nullable=False),
        sa.Column("name", sa.String(256), nullable=False),
        sa.Column("queries", sa.Integer, nullable=False),
        sa.Column("told", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("process", "name", name="pk_demands"),
    )


def downgrade() -> None:
    """Forget it."""
    op.drop_table("demands")
