"""A HATS catalogue as inputs of a load: its leaf files, to be cut into tiles anew.

Margins, indexes and metadata are left out, and so are columns that say where a row lies (the line column, Norder, Dir, Npix) and
the hidden ones of a store; the loader makes its own. The catalogue's schema is the word on columns, as for every HATS reader: a
column that a file lacks is NULL, one that the schema does not have is not there, and a narrower type becomes the declared one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from qengine.catalog.model import HEALPIX, HIDDEN_COLUMNS
from qengine.errors import InputError
from qengine.loader.sources.file import Place
from qengine.loader.sources.parquet import ParquetSource
from qengine.loader.sources.source import HATS, packed
from qengine.storage.hats_read import HatsCatalog, HatsFile, read_hats

_FROM_PATH = ("Norder", "Dir", "Npix")
_TABLES = ("object", "source", "")
_READERS = 8
DIRECTOR_POSITION = ("_director_ra", "_director_dec")


class HatsFileSource(ParquetSource):
    """One leaf file of a catalogue with the columns of `declared`."""

    format = "hats"

    def __init__(self, path: Place | Path | str, *, declared: pa.Schema) -> None:
        super().__init__(path)
        self._in_file = self._schema
        self._schema = declared
        for field in declared:
            place = self._in_file.get_field_index(field.name)
            if place >= 0 and not _is_castable(self._in_file.field(place).type, field.type):
                found = self._in_file.field(place).type
                raise InputError(f"{self.name}: column {field.name!r} is {found}, but the catalogue declares {field.type}")

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows in file order. Raise `InputError` with the first row of the batch that cannot be decoded."""
        wanted = self._check_columns(columns)
        schema = pa.schema([self._schema.field(name) for name in wanted])
        there = [name for name in wanted if name in self._in_file.names]
        # a batch without columns has no rows, so one column is read in any case
        read = there or self._in_file.names[:1]
        row = 0
        for batch in self._read(read):
            yield pa.record_batch([self._column(batch, field, row) for field in schema], schema=schema)
            row += batch.num_rows

    def _column(self, batch: pa.RecordBatch, field: pa.Field, row: int) -> pa.Array:
        if field.name not in self._in_file.names:
            return pa.nulls(batch.num_rows, field.type)
        values = batch.column(field.name)
        if values.type == field.type:
            return values
        try:
            return pc.cast(values, field.type)
        except pa.ArrowInvalid as error:
            raise InputError(f"{self.name}: past row {row + 1}, column {field.name!r}: {error}") from error

    def _options(self) -> Mapping[str, Any]:
        return {"declared": packed(self._schema)}


def is_hats(path: Path) -> bool:
    """Return whether a directory is a HATS catalogue or collection."""
    names = ("hats.properties", "collection.properties")
    return any((path / name).is_file() for name in names) or ((path / "properties").is_file() and (path / "dataset").is_dir())


def open_hats(path: Path) -> tuple[ParquetSource, ...]:
    """Return the leaf files of the catalogue, or of the collection's primary catalogue, in the order of the line.

    Raise `InputError` if it is no catalogue of rows or contradicts itself.
    """
    primary = read_hats(path).primary
    if primary.product not in _TABLES:
        raise InputError(
            f"{primary.root}: a {primary.product} catalogue is no table of its own", hint="load the object or source catalogue"
        )
    hidden = _left_out(primary)
    declared = pa.schema([field for field in primary.schema.remove_metadata() if field.name not in hidden])

    def leaf(file: HatsFile) -> ParquetSource:
        place = Place(uri=str(file.path), kind=HATS)
        plain = ParquetSource(place, hidden=sorted(hidden))
        return plain if plain.schema.equals(declared, check_metadata=True) else HatsFileSource(place, declared=declared)

    with ThreadPoolExecutor(_READERS, "hats") as pool:
        return tuple(pool.map(leaf, primary.files))


def _left_out(hats: HatsCatalog) -> frozenset[str]:
    return frozenset({*HIDDEN_COLUMNS, *_FROM_PATH, *DIRECTOR_POSITION, HEALPIX, hats.line_column})


def _is_castable(given: pa.DataType, declared: pa.DataType) -> bool:
    if given == declared:
        return True
    is_number = (pa.types.is_integer(given) or pa.types.is_floating(given)) and not pa.types.is_boolean(given)
    if is_number and pa.types.is_floating(declared):
        return bool(pa.types.is_integer(given) or given.bit_width <= declared.bit_width)
    if pa.types.is_integer(given) and pa.types.is_integer(declared):
        return True  # a value that does not fit is an error where it is met
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    if pa.types.is_dictionary(given):
        return _is_castable(given.value_type, declared)
    return any(test(given) for test in texts) and any(test(declared) for test in texts)
