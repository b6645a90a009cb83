"""The tables of a `Sky` as qengine's catalogue knows them, without any part: enough to bind and to plan."""

from __future__ import annotations

from collections.abc import Iterable

from qengine.catalog.model import NO_PARTS, Catalog, Column, Table, TableKind, TableSnapshot
from qengine.catalog.types import from_arrow
from tests.support.sky_builder import Sky, SkyTable


def table_of(sky: Sky, table: SkyTable) -> Table:
    """Return the definition that a load of `table` would publish."""
    is_child = table.kind == "child"
    family = table.director if is_child else table.name if table.kind == "director" else ""
    return Table(
        schema=sky.name,
        name=table.name,
        kind=TableKind(table.kind),
        columns=tuple(Column(name=field.name, type=from_arrow(field.type)) for field in table.rows.schema),
        family=f"{sky.name}.{family}" if family else "",
        key=table.key,
        director=table.director,
        director_key=table.director_key,
        ra=table.ra,
        dec=table.dec,
    )


def catalog_of(skies: Iterable[Sky]) -> Catalog:
    """Return a catalogue of all tables of all skies, at snapshot 1 and without parts."""
    return Catalog(
        tuple(
            TableSnapshot(table=table_of(sky, table), number=1, home=NO_PARTS, orphan=NO_PARTS, margin=NO_PARTS)
            for sky in skies
            for table in sky.tables
        )
    )
