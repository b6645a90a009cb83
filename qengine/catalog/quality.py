"""Quality of what a load stored, as it is kept: one small Parquet file per load, `<catalog>/_quality/<load id>.parquet`.

It lies beside the catalogue's records, so it outlives the registry, which says which of the files count: those of loads that have
finished. A row describes a table (`column_name` is NULL) or one column of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from qengine.catalog import durable
from qengine.catalog.files import Files
from qengine.catalog.loads import Load, LoadState
from qengine.catalog.types import BIGINT, DOUBLE, INTEGER, VARCHAR, SqlType, to_arrow
from qengine.errors import RegistryError

FOLDER = "_quality"

COLUMNS: tuple[tuple[str, SqlType, str], ...] = (
    ("load_number", BIGINT, "Number of the load: the value of the hidden column _load"),
    ("catalog_name", VARCHAR, "Name of the catalogue"),
    ("table_name", VARCHAR, "Name of the table within its catalogue"),
    ("column_name", VARCHAR, "Name of the column; NULL: the row is about the whole table"),
    ("part_rows", BIGINT, "Rows of the files that the load wrote: what the figures of columns are about"),
    ("null_count", BIGINT, "NULLs of the column in these files"),
    ("nan_count", BIGINT, "NaN of the inputs that were stored as NULL"),
    ("min_value", DOUBLE, "Smallest value if it is a number or a time (microseconds since 1970)"),
    ("max_value", DOUBLE, "Largest value if it is a number or a time (microseconds since 1970)"),
    ("min_text", VARCHAR, "Smallest value as text"),
    ("max_text", VARCHAR, "Largest value as text"),
    ("mean_value", DOUBLE, "Mean of the sampled values"),
    ("distinct_estimate", BIGINT, "Different values; an estimate unless all rows were sampled"),
    ("sampled_rows", BIGINT, "Rows that mean and different values are taken from"),
    ("unit", VARCHAR, "Unit of the column"),
    ("ucd", VARCHAR, "UCD of the column"),
    ("unit_coverage", DOUBLE, "Share of columns that have a unit"),
    ("ucd_coverage", DOUBLE, "Share of columns that have a UCD"),
    ("description_coverage", DOUBLE, "Share of columns that have a description"),
    ("rows_read", BIGINT, "Rows of the inputs: stored, quarantined, filtered and skipped ones together"),
    ("rows_stored", BIGINT, "Rows that went into the table"),
    ("rows_quarantined", BIGINT, "Rows put aside with a reason (bad positions, unless they are an error)"),
    ("rows_filtered", BIGINT, "Rows left out by the load's filter"),
    ("rows_skipped", BIGINT, "Rows that were in the table already"),
    ("rows_removed", BIGINT, "Rows taken out that were there before"),
    ("rows_wrapped", BIGINT, "Rows whose right ascension was brought into [0, 360)"),
    ("rows_without_position", BIGINT, "Rows without a place on the sky"),
    ("rows_without_director", BIGINT, "Rows of a child that name no row of the director"),
    ("null_keys", BIGINT, "Rows without a key; NULL if the table has no key"),
    ("duplicate_keys", BIGINT, "Rows whose key another row has; NULL if that was not checked"),
    ("quarantine", VARCHAR, "File of the rows put aside"),
    ("broken_thresholds", INTEGER, "Thresholds of the table's definition that the load broke, and that only warn"),
)

SCHEMA = pa.schema([(name, to_arrow(kind)) for name, kind, _ in COLUMNS])


def quality_path(root: Path, catalog: str, load: str) -> Path:
    """Return where the quality of a load lies."""
    return root / catalog / FOLDER / f"{load}.parquet"


def write_quality(files: Files, catalog: str, load: str, rows: pa.Table) -> None:
    """Write the file, whole or not at all; the same load may write it again."""
    path = quality_path(files.root, catalog, load)
    path.parent.mkdir(parents=True, exist_ok=True)
    durable.forget_unfinished(path)
    with durable.writing(path) as temporary:
        pq.write_table(rows, temporary, compression="zstd")
    files.keep([path])


def read_quality(files: Files, loads: Sequence[Load]) -> pa.Table:
    """Return the quality of those of the loads that have finished. Raise `RegistryError` for a file that cannot be read."""
    found = [SCHEMA.empty_table()]
    for load in loads:
        path = quality_path(files.root, load.catalog, load.id)
        if load.state is not LoadState.FINISHED or not load.catalog or not files.need(path).is_file():
            continue
        try:
            # of another version: what it does not have is NULL
            read = pq.ParquetFile(path).read().replace_schema_metadata(None)
            known = {name: read.column(name) for name in SCHEMA.names if name in read.schema.names}
            found.append(pa.table({name: known.get(name, pa.nulls(len(read))) for name in SCHEMA.names}).cast(SCHEMA))
        except (OSError, pa.ArrowException) as error:
            raise RegistryError(f"quality of load {load.id} cannot be read: {path}: {error}", hint="remove the file") from error
    return pa.concat_tables(found)
