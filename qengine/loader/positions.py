"""Which columns of a table say where its rows are, and whether inputs have them in ICRS degrees (`loader.convert`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa

from qengine.catalog.model import Table, TableKind
from qengine.catalog.schema import infer_table
from qengine.catalog.sidecar import Layout
from qengine.catalog.types import DOUBLE
from qengine.errors import ConfigError, InputError, SchemaError
from qengine.loader.convert import Conversion, Position, position_of
from qengine.loader.fit import Given
from qengine.loader.request import LoadRequest

RA_UCD = "pos.eq.ra;meta.main"
DEC_UCD = "pos.eq.dec;meta.main"


def conversion_of(request: LoadRequest, given: Sequence[Given], known: Table | None, layout: Layout | None) -> Conversion | None:
    """Return how positions become ICRS degrees, None if they are. Raise `InputError` if they are not and nobody asked for it."""
    names = _position_columns(request, given[0].schema, known)
    if names is None:
        return None
    said = {"frame": layout.frame if layout else "icrs", "unit": layout.unit if layout else "deg"}
    found: list[tuple[Given, Position]] = []
    for each in given:
        position = position_of(each.schema, *names, where=each.name, **said)
        if position is not None:
            found.append((each, position))
    for each, position in found:
        if position != found[0][1]:
            raise InputError(
                f"{each.name}: {position.to_text()}, but {found[0][1].to_text()} in {found[0][0].name}",
                hint="load them one after the other, or convert them to one unit and frame",
            )
    if not found or found[0][1].is_stored:
        return None
    first, position = found[0]
    if not request.convert_position:
        raise InputError(
            f"{first.name}: {position.to_text()}, not degrees in icrs",
            hint="--convert-position stores ICRS degrees and keeps the originals",
        )
    if known is not None and known.pmra and position.frame != "icrs":
        raise InputError(
            f"{first.name}: {position.to_text()}, and so are the proper motions {known.pmra} and {known.pmdec}",
            hint="convert both before the load: only positions are converted",
        )
    for each in given:
        Conversion.of(position, each.schema, each.name)
    return Conversion.of(position, first.schema, first.name)


def _position_columns(request: LoadRequest, schema: pa.Schema, known: Table | None) -> tuple[str, str] | None:
    """Return the columns of the inputs that say where a row is; None if there are none, or several (which is decided later)."""
    if request.ra and request.dec:
        return request.ra, request.dec
    if known is not None and known.ra:
        return known.ra, known.dec
    table = known or infer_table(schema, schema=request.catalog, name=request.table, kind=TableKind.REPLICATED)
    try:
        ra, dec = own_position(table, replace(request, ra="", dec=""))
    except SchemaError:
        return None
    return (ra, dec) if ra else None


def converted(table: Table, conversion: Conversion, schema: pa.Schema) -> Table:
    """Return a declared table with the columns that the conversion makes: ICRS degrees, and the originals."""
    made = infer_table(schema, schema=table.schema, name=table.name, kind=table.kind)
    columns = list(table.columns)
    for name in (conversion.ra, conversion.dec):
        new = made.column(name)
        place = next((i for i, column in enumerate(columns) if column.name == name), None)
        assert new is not None
        if place is None:
            columns.append(new)
        else:
            columns[place] = replace(columns[place], unit="deg", type=DOUBLE)
    for name in conversion.originals.values():
        original = made.column(name)
        if original is not None and all(column.name != name for column in columns):
            columns.append(original)
    return replace(table, columns=tuple(columns), ra=conversion.ra, dec=conversion.dec)


def own_position(table: Table, request: LoadRequest) -> tuple[str, str]:
    """Return the columns of a table's own position: those of the request, the declared ones, by UCD or by name; empty if there are
    none. Raise `ConfigError` or `SchemaError` where that is not clear."""
    if bool(request.ra) != bool(request.dec):
        raise ConfigError("a position needs both --ra and --dec")
    if request.ra:
        return named_column(table, request.ra, "--ra"), named_column(table, request.dec, "--dec")
    if table.ra and table.dec:
        return table.ra, table.dec
    found = []
    for ucd, name in ((RA_UCD, "ra"), (DEC_UCD, "dec")):
        by_ucd = [column.name for column in table.columns if column.ucd == ucd]
        if len(by_ucd) > 1:
            raise SchemaError(
                f"{table.full_name}: columns {', '.join(by_ucd)} all have the UCD {ucd}", hint="name one with --ra and --dec"
            )
        found.append(by_ucd[0] if by_ucd else name if table.column(name) else "")
    return (found[0], found[1]) if all(found) else ("", "")


def named_column(table: Table, name: str, option: str) -> str:
    """Return `name`, which is empty or names a column of the table. Raise `ConfigError` naming the option otherwise."""
    if name and table.column(name) is None:
        alike = [column.name for column in table.columns if column.name.lower() == name.lower()]
        known = alike or [column.name for column in table.columns][:12]
        raise ConfigError(f"{option} {name}: {table.full_name} has no such column", hint=f"columns: {', '.join(known)}")
    return name
