"""TAP_SCHEMA 1.1, derived from the tables that are published."""

from __future__ import annotations

from collections.abc import Sequence

from qengine.catalog.model import TableSnapshot


def tap_schema(tables: Sequence[TableSnapshot]) -> tuple[TableSnapshot, ...]:
    """Return the tables of TAP_SCHEMA."""
    return ()
