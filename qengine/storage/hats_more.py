"""Parts of a HATS catalogue that a plain tree does without: index tables and thumbnails.

An index table says in which pixels the values of a column are, for readers that have no other way to find them: Parquet files
sorted by value with the columns value, `Norder`, `Dir`, `Npix`, and `_metadata`, by which hats finds files and row groups. A
thumbnail holds the first row of (at most a thousand) leaves, so that a reader can show what rows are like without reading any.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from qengine.storage.hats import RELEASE_DATE, VERSION, write_properties

THUMBNAIL_ROWS = 1000

_INDEX_ROWS = 1 << 20
_PLACE = (("Norder", pa.uint8()), ("Dir", pa.uint64()), ("Npix", pa.uint64()))


def index_schema(column: pa.Field) -> pa.Schema:
    """Return the schema of an index table of this column."""
    return pa.schema([pa.field(column.name, column.type), *(pa.field(name, kind) for name, kind in _PLACE)])


def places_of(values: pa.Array, order: int, index: int, schema: pa.Schema) -> pa.Table:
    """Return the rows of an index table for the values of one leaf, each value once and no NULL."""
    once = pc.unique(values.drop_null())
    here = (order, index // 10_000 * 10_000, index)
    columns = [pa.repeat(pa.scalar(word, kind), len(once)) for word, (_, kind) in zip(here, _PLACE, strict=True)]
    return pa.table([once, *columns], schema=schema)


def write_index(
    folder: Path, rows: Iterable[pa.Table], schema: pa.Schema, *, name: str, primary: str, builder: str, created: str
) -> None:
    """Write an index catalogue into `folder`. `rows` come sorted by value, in pieces."""
    data = folder / "dataset" / "index"
    data.mkdir(parents=True)
    found: list[pq.FileMetaData] = []
    total = size = 0
    for number, piece in enumerate(rows):
        path = data / f"part.{number}.parquet"
        collected: list[pq.FileMetaData] = []
        pq.write_table(piece, path, row_group_size=_INDEX_ROWS, compression="zstd", metadata_collector=collected)
        collected[-1].set_file_path(f"index/{path.name}")
        found += collected
        total, size = total + piece.num_rows, size + path.stat().st_size
    pq.write_metadata(schema, folder / "dataset" / "_metadata", found)
    pq.write_metadata(schema, folder / "dataset" / "_common_metadata")
    column = schema.names[0]
    about: Mapping[str, str] = {
        "obs_collection": name, "dataproduct_type": "index", "hats_nrows": str(total), "hats_index_column": column,
        "hats_primary_table_url": primary, "hats_estsize": str(size // 1024), "hats_builder": builder,
        "hats_creation_date": created, "hats_version": VERSION, "hats_release_date": RELEASE_DATE,
    }  # fmt: skip
    for each in ("properties", "hats.properties"):
        write_properties(folder / each, about)


def write_thumbnail(folder: Path, leaves: Iterable[Path], schema: pa.Schema) -> None:
    """Write the first rows of these files, one of each, as the catalogue's thumbnail."""
    rows: list[pa.Table] = []
    for path in leaves:
        if len(rows) == THUMBNAIL_ROWS:
            break
        with pq.ParquetFile(path) as file:
            if file.metadata.num_rows:
                rows.append(pa.Table.from_batches([next(file.iter_batches(1))]).select(schema.names).cast(schema))
    pq.write_table(pa.concat_tables(rows) if rows else schema.empty_table(), folder / "dataset" / "data_thumbnail.parquet")
