"""Files of every format that the loader reads, written by somebody else's writer from the same table."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from astropy.io.votable import from_table
from astropy.table import Column, MaskedColumn, Table

from qengine.loader.sources.open import open_sources
from qengine.loader.sources.source import Source

WORDS = {
    "ra": {"unit": "deg", "ucd": "pos.eq.ra;meta.main", "description": "right ascension"},
    "mag": {"unit": "mag", "description": "magnitude, g band"},
}


@dataclass(frozen=True, kw_only=True)
class Maker:
    """`write(table, folder)` writes the file. Formats differ in what they keep: texts that are empty or beyond ASCII, units, UCDs,
    types, exact counts of rows."""

    write: Callable[[pa.Table, Path], Path]
    words: tuple[str, ...] = ("unit", "ucd", "description")
    has_unicode: bool = True
    is_counted: bool = True
    has_types: bool = True

    def make(self, table: pa.Table, folder: Path) -> Source:
        return open_sources([self.write(table, folder)])[0]


def table(rows: int = 5_000, *, has_unicode: bool = True) -> pa.Table:
    """Integers, floats with NULL, texts with NULL, truth values; names and words as of a catalogue."""
    number = np.arange(rows)
    texts = [f'{"Łódź é" if has_unicode else "star"} {i}, "quoted"' if i % 5 else None for i in range(rows)]
    columns = {
        "id": pa.array(number * 7 + 10**12, pa.int64()),
        "ra": pa.array(number / 8, pa.float64()),
        "mag": pa.array([None if i % 7 == 0 else i / 16 for i in range(rows)], pa.float32()),
        "name": pa.array(texts, pa.string()),
        "is_star": pa.array(number % 2 == 0),
        "n": pa.array(number % 100, pa.int16()),
    }
    fields = [pa.field(name, values.type, metadata=WORDS.get(name)) for name, values in columns.items()]
    return pa.table(list(columns.values()), schema=pa.schema(fields))


def to_astropy(rows: pa.Table) -> Table:
    """The same rows with units, UCDs (in meta) and descriptions."""
    made = Table()
    for field in rows.schema:
        values = rows[field.name]
        mask = values.is_null().to_numpy()
        plain = values.fill_null("" if pa.types.is_string(field.type) else False if pa.types.is_boolean(field.type) else 0)
        array = np.array(plain.to_pylist(), field.type.to_pandas_dtype() if not pa.types.is_string(field.type) else str)
        own = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
        words: Mapping[str, str] = {**WORDS.get(field.name, {}), **own}
        kind = MaskedColumn(array, mask=mask) if mask.any() else Column(array)
        kind.unit = words.get("unit")
        kind.description = words.get("description")
        if "ucd" in words:
            kind.meta["ucd"] = words["ucd"]
        made[field.name] = kind
    return made


def parquet(rows: pa.Table, folder: Path) -> Path:
    pq.write_table(rows, folder / "t.parquet", row_group_size=1000)
    return folder / "t.parquet"


def arrow_file(rows: pa.Table, folder: Path) -> Path:
    with pa.OSFile(str(folder / "t.arrow"), "wb") as sink, pa.ipc.new_file(sink, rows.schema) as writer:
        writer.write_table(rows, max_chunksize=700)
    return folder / "t.arrow"


def arrow_stream(rows: pa.Table, folder: Path) -> Path:
    with pa.OSFile(str(folder / "t.arrows"), "wb") as sink, pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    return folder / "t.arrows"


def csv(rows: pa.Table, folder: Path) -> Path:
    pacsv.write_csv(rows, folder / "t.csv")
    return folder / "t.csv"


def tsv(rows: pa.Table, folder: Path) -> Path:
    with gzip.open(folder / "t.tsv.gz", "wb") as file:
        pacsv.write_csv(rows, file, pacsv.WriteOptions(delimiter="\t"))
    return folder / "t.tsv.gz"


def ecsv(rows: pa.Table, folder: Path) -> Path:
    to_astropy(rows).write(folder / "t.ecsv", format="ascii.ecsv", overwrite=True)
    return folder / "t.ecsv"


def fits(rows: pa.Table, folder: Path) -> Path:
    made = to_astropy(rows)
    made.write(folder / "t.fits", format="fits", overwrite=True)
    return folder / "t.fits"


def _votable(rows: pa.Table, path: Path, layout: str) -> Path:
    found = from_table(to_astropy(rows))
    for field in found.get_first_table().fields:
        field.ucd = WORDS.get(field.name, {}).get("ucd")
    found.to_xml(str(path), tabledata_format=layout)
    return path


def votable_text(rows: pa.Table, folder: Path) -> Path:
    return _votable(rows, folder / "t.vot", "tabledata")


def votable_binary(rows: pa.Table, folder: Path) -> Path:
    return _votable(rows, folder / "t.xml", "binary")


def votable_binary2(rows: pa.Table, folder: Path) -> Path:
    return _votable(rows, folder / "t.votable", "binary2")


MAKERS: dict[str, Maker] = {
    "parquet": Maker(write=parquet),
    "arrow_file": Maker(write=arrow_file),
    "arrow_stream": Maker(write=arrow_stream, is_counted=False),
    "csv": Maker(write=csv, words=(), has_types=False),
    "tsv": Maker(write=tsv, words=(), has_types=False),
    "ecsv": Maker(write=ecsv),
    "fits": Maker(write=fits, words=("unit",), has_unicode=False),
    "votable_text": Maker(write=votable_text),
    "votable_binary": Maker(write=votable_binary, is_counted=False),
    "votable_binary2": Maker(write=votable_binary2, is_counted=False),
}
