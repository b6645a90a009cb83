"""Attaching: a HATS catalogue becomes a table as it lies, without copying a byte.

Only footers are read. What they cannot prove is not claimed:

* Keys are unproven, floats may be NaN (which is read as NULL), and digests are empty until somebody scrubs the files.
* The line column is used only if the catalogue has one of order 29 and every row group's range of it is known, without NULLs and
  within the file's tile. Otherwise `line_column` is empty and a tile is read whole or not at all; so each row is counted exactly
  once, wherever rows without a position have been filed.
* Margin parts come from the collection's margin catalogue (the default one first), if it and the table have a line column and it
  says how wide it is. A margin catalogue that cannot be used is left out, and the load's context says why.
* Columns that queries cannot use (maps) are left out, and so are those that no file has. Columns that old writers repeat from the
  path (Norder, Dir, Npix) are hidden.
* Files may be of different ages: a column that a file lacks is NULL there, and a narrower type is read as the declared one. The
  columns are those of the catalogue's own metadata, or else of all files together, each in its widest type. A file that differs is
  read whole once, because its digest says, whenever it is opened, that it is still the file that was found to differ
  (`execution.inputs`); of any other file a missing column is an error. Position and key must be in every file.
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
from qengine.catalog.schema import check_names, column_of, fits
from qengine.catalog.types import from_arrow
from qengine.errors import ConfigError, ConflictError, InputError, QEngineError, SchemaError
from qengine.sky.cells import LINE_END
from qengine.storage.hats_read import HatsCatalog, HatsFile, read_catalog, read_hats
from qengine.storage.objects import Store, sha256_file
from qengine.storage.statistics import PartRecord, record_of, to_parts

_FROM_PATH = ("Norder", "Dir", "Npix")
_PRODUCTS = ("object", "source", "")
_DEGREES = ("", "deg", "degree", "degrees")
_READERS = 8

Footers = Mapping[Path, pq.FileMetaData]


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
    footers = _footers(primary)
    definition, left_out = _define(primary, footers, catalog=catalog, table=table, kind=kind, key=key)
    records = _records(primary, footers, definition, is_replicated=kind is TableKind.REPLICATED)
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
    if not all(uri.startswith("/") for uri in found.home.uri.to_pylist()):
        raise ConflictError(f"{found.table.full_name} was loaded, not attached", hint="attach under another name")
    if not is_replacing:
        raise ConflictError(f"{found.table.full_name} is attached already", hint="attach under another name, or with --replace")


# -- definition ---------------------------------------------------------------------------------------------------------------


def _define(hats: HatsCatalog, footers: Footers, *, catalog: str, table: str, kind: TableKind, key: str) -> tuple[Table, list[str]]:
    """Return the table that the catalogue is, and the columns that had to be left out."""
    words = hats.properties
    if hats.product not in _PRODUCTS:
        raise InputError(
            f"{hats.root}: a {hats.product} catalogue is no table of its own", hint="attach the object or source catalogue"
        )
    columns, left_out = _columns(hats, footers)
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


def _columns(hats: HatsCatalog, footers: Footers) -> tuple[tuple[Column, ...], list[str]]:
    hidden = {*HIDDEN_COLUMNS, *_FROM_PATH, HEALPIX, hats.line_column}
    in_files = {name for footer in footers.values() for name in footer.schema.to_arrow_schema().names}
    columns, left_out = [], []
    for field in hats.schema if _has_schema(hats) else _united(footers):
        if field.name not in in_files:
            if field.name not in _FROM_PATH:
                left_out.append(field.name)
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


def _has_schema(hats: HatsCatalog) -> bool:
    """Return whether the catalogue itself says which columns it has; otherwise its files do."""
    return any((hats.root / "dataset" / name).is_file() for name in ("_common_metadata", "_metadata"))


def _united(footers: Footers) -> list[pa.Field]:
    """Return the columns of all files, each in the widest of its types; those that contradict each other are found later."""
    found: dict[str, pa.Field] = {}
    for footer in footers.values():
        for field in footer.schema.to_arrow_schema():
            known = found.setdefault(field.name, field)
            if known.type != field.type and _fits(known.type, field.type):
                found[field.name] = known.with_type(field.type)
    return list(found.values())


def _fits(given: pa.DataType, declared: pa.DataType) -> bool:
    try:
        return fits(from_arrow(given), from_arrow(declared))
    except SchemaError:
        return False


def _epoch(words: Mapping[str, str]) -> float | None:
    match = re.fullmatch(r"J?(\d{4}(?:\.\d*)?)", words.get("hats_coordinate_epoch", "").strip())
    return float(match[1]) if match else None


# -- parts --------------------------------------------------------------------------------------------------------------------


def _footers(hats: HatsCatalog) -> Footers:
    """Return the footers of all files. Raise `InputError` for a file that is broken."""
    paths = [file.path for file in hats.files]
    with ThreadPoolExecutor(_READERS) as pool:
        return dict(zip(paths, pool.map(_footer, paths), strict=True))


def _records(hats: HatsCatalog, footers: Footers, table: Table, *, is_replicated: bool = False) -> list[PartRecord]:
    """Return a record per file. Raise `InputError` for a file whose columns cannot be read as those of the table."""
    columns = frozenset(column.name for column in table.columns)

    def read(file: HatsFile) -> PartRecord:
        footer = footers[file.path]
        digest = sha256_file(file.path) if _is_different(footer, table, file.path) else ""
        start, stop = (0, LINE_END) if is_replicated else file.tile.range
        return record_of(
            footer, uri=file.path.as_posix(), size=file.path.stat().st_size, digest=digest, start=start, stop=stop,
            line_column=table.line_column, columns=columns, has_nan=True,
        )  # fmt: skip

    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(read, hats.files))


def _footer(path: Path) -> pq.FileMetaData:
    try:
        return pq.read_metadata(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: not a readable Parquet file: {error}") from error


def _is_different(footer: pq.FileMetaData, table: Table, path: Path) -> bool:
    """Return whether a file lacks a column of the table or has it in a narrower type. Raise `InputError` for one that it cannot be
    read without, and for another type."""
    fields = {field.name: field.type for field in footer.schema.to_arrow_schema()}
    is_different = False
    for column in table.columns:
        if column.name not in fields:
            if column.name in (table.ra, table.dec, table.key):
                raise InputError(f"{path}: column {column.name} is missing", hint="position and key must be in every file")
            is_different = True
            continue
        kind = from_arrow(fields[column.name])
        if kind.name == column.type.name:
            continue
        if kind.name.endswith("[]") or not fits(kind, column.type):
            raise InputError(
                f"{path}: column {column.name} is {fields[column.name]}, but the catalogue declares {column.type}",
                hint="rewrite the file, or load the catalogue instead of attaching it",
            )
        is_different = True
    return is_different


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
            records = _records(hats, _footers(hats), table)
            if not all(record.has_line for record in records):
                raise InputError(f"{path}: the cells of its row groups are not known")
        except InputError as error:
            notes.append(str(error))
            continue
        return _Margin(parts=to_parts(records), arcsec=hats.margin_arcsec, note=f"{path}")
    if candidates and not table.line_column:
        notes.append("without a line column a margin cannot be used")
    return _Margin(parts=NO_PARTS, arcsec=0.0, note="; ".join(notes))
