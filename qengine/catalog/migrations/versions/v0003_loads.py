"""Loads are numbered, may stay open, and say what they read.

Loads of older versions are numbered in the order in which they began. Those that had not ended are aborted: the qengine that
ran them cannot end them in this registry any more, and what they wrote was never published.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_OLD = sa.table(
    "loads", sa.column("id", sa.String), sa.column("state", sa.String), sa.column("started", sa.DateTime),
    sa.column("finished", sa.DateTime), sa.column("error", sa.Text), sa.column("number", sa.Integer),
    sa.column("catalog", sa.String), sa.column("snapshot", sa.Integer),
)  # fmt: skip
_SNAPSHOTS = sa.table(
    "snapshots", sa.column("load_id", sa.String), sa.column("catalog", sa.String), sa.column("number", sa.Integer)
)


def upgrade() -> None:
    """Number the loads, and make the table of inputs."""
    with op.batch_alter_table("loads") as loads:
        loads.add_column(sa.Column("number", sa.Integer))
        loads.add_column(sa.Column("catalog", sa.String(128), nullable=False, server_default=""))
        loads.add_column(sa.Column("snapshot", sa.Integer))
    connection = op.get_bind()
    published = {
        row.load_id: row for row in connection.execute(sa.select(_SNAPSHOTS).order_by(_SNAPSHOTS.c.catalog, _SNAPSHOTS.c.number))
    }
    old = connection.execute(sa.select(_OLD.c.id, _OLD.c.state).order_by(_OLD.c.started, _OLD.c.id)).all()
    for number, load in enumerate(old, 1):
        values: dict[str, object] = {"number": number}
        if load.id in published:
            values |= {"catalog": published[load.id].catalog, "snapshot": published[load.id].number}
        if load.state == "running":
            values |= {
                "state": "aborted",
                "finished": sa.func.current_timestamp(),
                "error": "it had not ended when qengine was updated",
            }
        connection.execute(sa.update(_OLD).where(_OLD.c.id == load.id).values(values))
    with op.batch_alter_table("loads") as loads:
        loads.alter_column("number", existing_type=sa.Integer, nullable=False)
        loads.alter_column("catalog", existing_type=sa.String(128), existing_nullable=False, server_default=None)
        loads.create_unique_constraint("uq_loads_number", ["number"])
    op.create_table(
        "inputs",
        sa.Column("load", sa.Integer, nullable=False),
        sa.Column("table_name", sa.String(128), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("catalog", sa.String(128), nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("uri", sa.Text, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("rows_read", sa.BigInteger, nullable=False),
        sa.Column("rows_stored", sa.BigInteger, nullable=False),
        sa.Column("rows_quarantined", sa.BigInteger, nullable=False),
        sa.Column("rows_filtered", sa.BigInteger, nullable=False),
        sa.Column("rows_skipped", sa.BigInteger, nullable=False),
        sa.Column("coverage", sa.LargeBinary, nullable=False),
        sa.Column("replaced_by", sa.Integer),
        sa.PrimaryKeyConstraint("load", "table_name", "number", name="pk_inputs"),
        sa.ForeignKeyConstraint(["load"], ["loads.number"], name="fk_inputs_load"),
        sa.ForeignKeyConstraint(["replaced_by"], ["loads.number"], name="fk_inputs_replaced_by"),
    )
    op.create_index("ix_inputs_catalog", "inputs", ["catalog", "table_name"])


def downgrade() -> None:
    """Forget numbers and inputs."""
    op.drop_index("ix_inputs_catalog", "inputs")
    op.drop_table("inputs")
    with op.batch_alter_table("loads") as loads:
        loads.drop_constraint("uq_loads_number", type_="unique")
        for name in ("number", "catalog", "snapshot"):
            loads.drop_column(name)
