"""Parts: the Parquet files that hold all rows, written once under the digest of their bytes.

A part is encoded for scans (knowledge/duckdb.md, section 2): LZ4_RAW pages, BYTE_STREAM_SPLIT floats, DELTA integers, a
dictionary only
where a sample shows few distinct values, row groups of 64 thousand rows or 64 MB, page index, page checksums and statistics.
The digest is computed while the bytes go to a temporary file, which is then renamed: a part exists completely or not at all,
and the same rows give the same name.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from qengine.catalog.model import HEALPIX
from qengine.errors import IntegrityError
from qengine.storage.digest import DigestingFile

ROW_GROUP_ROWS = 65_536
ROW_GROUP_BYTES = 64 << 20

_SAMPLE_ROWS = 8192
_LOW_CARDINALITY = 0.05
_METADATA_BYTES = 4 << 20
_BLOOM_FPP = 0.01
_SYNC_THREADS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class PartFile:
    """A part that has been written. `rows` and `bytes` are what its footer and its size say."""

    digest: str
    path: Path
    rows: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PartFormat:
    """How the parts of a table are written. `sorted_by` names the columns that the rows are sorted by; `bloom` those that get a
    bloom filter (keys that do not follow the sky)."""

    sorted_by: tuple[str, ...] = (HEALPIX,)
    bloom: tuple[str, ...] = ()
    compression: str = "lz4"
    compression_level: int | None = None


def part_path(folder: Path, digest: str) -> Path:
    """Return where the part of this digest lies in a table's `parts` folder."""
    return folder / digest[:2] / f"{digest}.parquet"


def write_part(rows: pa.Table, folder: Path, form: PartFormat) -> PartFile:
    """Write `rows` as one part below `folder` and return it. Writing the same rows again gives the same file."""
    folder.mkdir(parents=True, exist_ok=True)
    staged = folder / f".{uuid4().hex}.tmp"
    try:
        with staged.open("wb") as file:
            sink = DigestingFile(file.fileno(), hashlib.sha256())
            stream = pa.PythonFile(sink, mode="w")
            stored = _write(rows, stream, form)
            stream.flush()
        if stored != rows.num_rows:
            raise IntegrityError(f"{rows.num_rows:,} rows were to be written below {folder}, but the file has {stored:,}")
        digest = sink.hexdigest()
        path = part_path(folder, digest)
        path.parent.mkdir(exist_ok=True)
        os.replace(staged, path)
    finally:
        staged.unlink(missing_ok=True)
    return PartFile(digest=digest, path=path, rows=stored, bytes=sink.bytes)


def verify_part(path: Path, digest: str) -> None:
    """Raise `IntegrityError` unless the file's bytes have this sha256."""
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise IntegrityError(f"part {path} cannot be read: {error}") from error
    if found != digest:
        raise IntegrityError(f"part {path} has digest {found}, but {digest} was published", hint="restore the file from a replica")


def sync_parts(paths: Iterable[Path]) -> None:
    """Wait until files and their names are on the disk.

    Called once before a publish: until then nobody relies on a part, and a disk takes many waiting files for hardly more than
    the price of one.
    """
    files = list(paths)
    folders = sorted({folder for path in files for folder in (path.parent, path.parent.parent)})
    with ThreadPoolExecutor(_SYNC_THREADS, "sync") as pool:
        for step in (files, folders):
            for _ in pool.map(_sync, step):
                pass


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def row_group_rows(rows: pa.Table) -> int:
    """Return how many rows a row group of this table holds."""
    row_bytes = max(1, rows.nbytes // max(1, rows.num_rows))
    return max(1, min(ROW_GROUP_ROWS, int(ROW_GROUP_BYTES // row_bytes)))


def _write(rows: pa.Table, stream: pa.NativeFile, form: PartFormat) -> int:
    """Write the rows and return how many there are by the footer of the file."""
    footers: list[pq.FileMetaData] = []
    dictionary = _low_cardinality(rows)
    group_rows = row_group_rows(rows)
    schema = rows.schema
    if rows.nbytes < _METADATA_BYTES:
        # units and descriptions of a wide table weigh more than a small part's rows
        schema = pa.schema([field.remove_metadata() for field in schema])
        rows = rows.cast(schema)
    with pq.ParquetWriter(
        stream,
        schema,
        compression=form.compression,
        compression_level=form.compression_level,
        use_dictionary=dictionary,
        column_encoding=_encodings(schema, dictionary),
        write_statistics=True,
        write_page_index=True,
        write_page_checksum=True,
        sorting_columns=[pq.SortingColumn(schema.get_field_index(name)) for name in form.sorted_by if name in schema.names],
        bloom_filter_options={
            name: {"ndv": min(group_rows, max(rows.num_rows, 1)), "fpp": _BLOOM_FPP} for name in form.bloom if name in schema.names
        }
        or None,
        metadata_collector=footers,
    ) as writer:
        writer.write_table(rows, row_group_size=group_rows)
    return int(footers[0].num_rows)


def _low_cardinality(rows: pa.Table) -> list[str]:
    if rows.num_rows == 0:
        return []
    # From all over the part, because neighbours on the line are alike; not at equal steps, because inputs can be periodic.
    chosen = np.sort(np.random.default_rng(_SAMPLE_ROWS).integers(0, rows.num_rows, _SAMPLE_ROWS))
    sample = rows.take(pa.array(chosen)) if rows.num_rows > _SAMPLE_ROWS else rows
    limit = max(2, int(sample.num_rows * _LOW_CARDINALITY))
    found = []
    for field in rows.schema:
        if not (pa.types.is_integer(field.type) or pa.types.is_string(field.type) or pa.types.is_date(field.type)):
            continue
        if field.name != HEALPIX and pc.count_distinct(sample.column(field.name)).as_py() <= limit:
            found.append(field.name)
    return found


def _encodings(schema: pa.Schema, dictionary: Sequence[str]) -> dict[str, str]:
    found = {}
    for field in schema:
        if field.name in dictionary:
            continue
        if pa.types.is_floating(field.type):
            found[field.name] = "BYTE_STREAM_SPLIT"
        elif pa.types.is_integer(field.type) or pa.types.is_timestamp(field.type) or pa.types.is_date(field.type):
            found[field.name] = "DELTA_BINARY_PACKED"
    return found
