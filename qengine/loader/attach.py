"""Attaching: a HATS catalogue becomes a table as it lies, without copying a byte.

Only footers are read. What they cannot prove is not claimed:

* Keys are unproven, floats may be NaN (which is read as NULL), and digests are empty until somebody scrubs the files.
* The line column is used only if the catalogue has one of order 29 and every row group's range of it is known, without NULLs and
  within the file's tile. Otherwise `line_column` is empty and a tile is read whole or not at all; so each row is counted exactly
  once, wherever rows without a position have been filed.
* Margin parts come from the collection's margin catalogue (the default one first), if it and the table have a line column and it
  says how wide it is. A margin catalogue that cannot be used is left out, and the load's context says why.
* Columns that queries cannot use (structs, maps) are left out. Columns that old writers repeat from the path (Norder, Dir, Npix)
  are hidden.
* Every file must have every column, of one type: files of different ages would need to be unified at each scan.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qengine.catalog.model import (
    HEALPIX,
    HIDDEN_COLUMNS,
    NO_PARTS,
    Column,
    Parts,
    Release,
    Table,
    TableKind,
    TableSnapshot,
)
from qengine.catalog.registry import Registry
from qengine.catalog.schema import check_names, column_of
from qengine.catalog.types import from_arrow
from qengine.errors import ConfigError, ConflictError, InputError, QEngineError, SchemaError
from qengine.sky.cells import LINE_END
from qengine.storage.hats_read import HatsCatalog, HatsFile, read_catalog, read_hats
from qengine.storage.objects import Store
from qengine.storage.statistics import PartRecord, record_of, to_parts

_FROM_PATH = ("Norder", "Dir", "Npix")
_PRODUCTS = ("object", "source", "")
_DEGREES = ("", "deg", "degree", "degrees")
_READERS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class _Margin:
    parts: Parts
    arcsec: float
    note: str


def attach(
    path: Path | str,
    *,
    catalog: str,
    table: str,
    registry: Registry,
    store: Store,
    kind: TableKind = TableKind.DIRECTOR,
    key: str = "",
    is_replacing: bool = False,
) -> int:
    """Publish the HATS catalogue at `path` as `catalog`.`table` and return the number of the snapshot.

    `kind` is director, or replicated for a small table that every worker may read whole; `key` names a unique key, which stays
    unproven (`loader.prove` proves it). A table of this name must not be there, unless `is_replacing`: then one that was attached
    before is replaced. Raise `InputError` if the catalogue cannot be used; nothing has changed then.
    """
    source = Path(path).expanduser().absolute()
    if kind is TableKind.CHILD:
        raise ConfigError("a catalogue cannot be attached as child: nothing says that its rows lie with their directors")
    expected = registry.snapshot_number(catalog)
    _check_free(registry, catalog, table, is_replacing=is_replacing)
    collection = read_hats(source)
    primary = collection.primary
    definition, left_out = _define(primary, catalog=catalog, table=table, kind=kind, key=key)
    records = _records(primary, definition, is_replicated=kind is TableKind.REPLICATED)
    if definition.line_column and not _is_line_usable(records):
        definition = replace(definition, line_column="")
        records = [_without_line(record) for record in records]
    margin = _margin(collection.margins, definition)
    snapshot = TableSnapshot(
        table=definition,
        number=expected + 1,
        home=to_parts(records),
        orphan=NO_PARTS,
        margin=margin.parts,
        margin_arcsec=margin.arcsec,
    )
    context = {
        "operation": "attach",
        "path": source,
        "table": definition.full_name,
        "properties": dict(primary.properties),
        "rows": snapshot.rows,
        "left_out": left_out,
        "margin": margin.note,
        "store": store.root,
    }
    load = registry.begin_load(context)
    try:
        number = registry.publish(load, catalog, [snapshot], expected=expected)
    except QEngineError as error:
        registry.abort_load(load, str(error))
        raise
    registry.finish_load(load)
    return number


def _check_free(registry: Registry, catalog: str, table: str, *, is_replacing: bool) -> None:
    found = registry.catalog().find(catalog, table)
    if found is None:
        return
    if any(found.home.digest.to_pylist()):
        raise ConflictError(f"{found.table.full_name} was loaded, not attached", hint="attach under another name")
    if not is_replacing:
        raise ConflictError(f"{found.table.full_name} is attached already", hint="attach under another name, or with --replace")


# -- definition ---------------------------------------------------------------------------------------------------------------


def _define(hats: HatsCatalog, *, catalog: str, table: str, kind: TableKind, key: str) -> tuple[Table, list[str]]:
    """Return the table that the catalogue is, and the columns that had to be left out."""
    words = hats.properties
    if hats.product not in _PRODUCTS:
        raise InputError(
            f"{hats.root}: a {hats.product} catalogue is no table of its own", hint="attach the object or source catalogue"
        )
    columns, left_out = _columns(hats)
    names = {column.name: column for column in columns}
    ra, dec = words.get("hats_col_ra", ""), words.get("hats_col_dec", "")
    for role, name in (("hats_col_ra", ra), ("hats_col_dec", dec)):
        if kind is TableKind.DIRECTOR and not name:
            raise InputError(f"{hats.root}: the properties do not say {role}", hint="attach it as replicated if it has no position")
        if name and (name not in names or not names[name].type.is_float):
            raise InputError(f"{hats.root}: {role} is {name}, which is not a floating-point column")
        if name and names[name].unit.lower() not in _DEGREES:
            raise InputError(f"{hats.root}: {name} is in {names[name].unit}, not in degrees", hint="load it with conversion")
    if (frame := words.get("hats_frame", "icrs").lower()) != "icrs":
        raise InputError(f"{hats.root}: positions are in {frame}, not icrs", hint="load it with conversion")
    if key and key not in names:
        raise InputError(f"{hats.root}: there is no column {key}", hint=f"columns: {', '.join(list(names)[:12])}")
    is_director = kind is TableKind.DIRECTOR
    title = words.get("obs_title") or words.get("obs_collection", "")
    definition = Table(
        schema=catalog,
        name=table,
        kind=kind,
        columns=columns,
        family=f"{catalog}.{table}" if is_director else "",
        key=key,
        ra=ra,
        dec=dec,
        epoch=_epoch(words),
        is_key_proven=False,
        has_nan=True,
        line_column=hats.line_column if is_director else "",
        description=words.get("obs_description", "") or title,
        release=Release(title=title, citation=words.get("bib_reference", "")),
    )
    return definition, left_out


def _columns(hats: HatsCatalog) -> tuple[tuple[Column, ...], list[str]]:
    hidden = {*HIDDEN_COLUMNS, *_FROM_PATH, HEALPIX, hats.line_column}
    in_files = set(_footer(hats.files[0].path).schema.to_arrow_schema().names)
    columns, left_out = [], []
    for field in hats.schema:
        if field.name in _FROM_PATH and field.name not in in_files:
            continue
        try:
            column = column_of(field, hidden=field.name in hidden)
            columns.append(replace(column, nullable=column.nullable or column.type.is_float))  # NaN is NULL
        except SchemaError:
            left_out.append(field.name)
    if not columns:
        raise InputError(f"{hats.root}: none of its columns can be used")
    check_names(columns, str(hats.root))
    return tuple(columns), left_out


def _epoch(words: Mapping[str, str]) -> float | None:
    match = re.fullmatch(r"J?(\d{4}(?:\.\d*)?)", words.get("hats_coordinate_epoch", "").strip())
    return float(match[1]) if match else None


# -- parts --------------------------------------------------------------------------------------------------------------------


def _records(hats: HatsCatalog, table: Table, *, is_replicated: bool = False) -> list[PartRecord]:
    """Return a record per file. Raise `InputError` for a file that is broken or has other columns than the table."""
    columns = frozenset(column.name for column in table.columns)
    expected = {column.name: column.type.name for column in table.columns}

    def read(file: HatsFile) -> PartRecord:
        footer = _footer(file.path)
        _check_schema(footer, expected, file.path)
        start, stop = (0, LINE_END) if is_replicated else file.tile.range
        return record_of(
            footer, uri=file.path.as_posix(), size=file.path.stat().st_size, digest="", start=start, stop=stop,
            line_column=table.line_column, columns=columns, has_nan=True,
        )  # fmt: skip

    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(read, hats.files))


def _footer(path: Path) -> pq.FileMetaData:
    try:
        return pq.read_metadata(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: not a readable Parquet file: {error}") from error


def _check_schema(footer: pq.FileMetaData, expected: Mapping[str, str], path: Path) -> None:
    fields = {field.name: field.type for field in footer.schema.to_arrow_schema()}
    for name, kind in expected.items():
        if name not in fields:
            raise InputError(f"{path}: column {name} is missing", hint="rewrite old files with the catalogue's schema")
        if from_arrow(fields[name]).name != kind:
            raise InputError(f"{path}: column {name} is {fields[name]}, but the catalogue declares {kind}", hint="rewrite the file")


def _is_line_usable(records: Sequence[PartRecord]) -> bool:
    return all(r.has_line and (r.rows == 0 or r.start <= r.lowest <= r.highest < r.stop) for r in records)


def _without_line(record: PartRecord) -> PartRecord:
    """Return the record with ranges that say no more than the tile does."""
    first, last = record.start, record.stop - 1
    return replace(
        record,
        lowest=first,
        highest=last,
        group_lowest=np.full(len(record.group_rows), first, np.int64),
        group_highest=np.full(len(record.group_rows), last, np.int64),
    )


def _margin(candidates: Sequence[Path], table: Table) -> _Margin:
    """Return the parts of the first margin catalogue that can be used, or none and the reason."""
    notes = []
    for path in candidates if table.line_column else ():
        try:
            hats = read_catalog(path)
            if hats.product != "margin" or hats.margin_arcsec <= 0:
                raise InputError(f"{path}: not a margin catalogue with a threshold")
            if hats.line_column != table.line_column:
                raise InputError(f"{path}: no column {table.line_column} of order 29")
            records = _records(hats, table)
            if not all(record.has_line for record in records):
                raise InputError(f"{path}: the cells of its row groups are not known")
        except InputError as error:
            notes.append(str(error))
            continue
        return _Margin(parts=to_parts(records), arcsec=hats.margin_arcsec, note=f"{path}")
    if candidates and not table.line_column:
        notes.append("without a line column a margin cannot be used")
    return _Margin(parts=NO_PARTS, arcsec=0.0, note="; ".join(notes))
