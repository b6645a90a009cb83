"""Rows of a part as the table declares them now, whatever the columns were when the part was written (`catalog.evolution`)."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from qengine.errors import IntegrityError


def as_declared(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return `rows` with exactly the columns of `schema`: missing ones are NULL, narrower types are cast, others are left out.

    Raise `IntegrityError` for a column whose values cannot be those of the declared type.
    """
    if rows.schema.equals(schema):
        return rows
    columns = []
    for field in schema:
        place = rows.schema.get_field_index(field.name)
        if place < 0:
            columns.append(pa.chunked_array([pa.nulls(rows.num_rows, field.type)], field.type))
            continue
        values = rows.column(place)
        if values.type != field.type:
            try:
                values = pc.cast(values, field.type)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise IntegrityError(
                    f"column {field.name} is {values.type}, which cannot be read as {field.type}: {error}"
                ) from error
        columns.append(values)
    return pa.table(columns, schema=schema)


def stored(schema: pa.Schema, wanted: Sequence[str]) -> list[str]:
    """Return those of the wanted columns that a file has, in the order in which they are wanted."""
    present = frozenset(schema.names)
    return [name for name in wanted if name in present]
