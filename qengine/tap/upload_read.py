"""From the bytes of an upload to a table in memory.

The sources of the loader read it, once `upload_scan` has found nothing dangerous. They give batches, so that limits of rows and
memory hold while it is read, whatever its own header claims. Types become those of the engine, and NaN is NULL as everywhere.
Unit, UCD, utype, xtype, description and system of columns are in the metadata of the fields.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from qengine.catalog.types import from_field, length_of, to_arrow
from qengine.errors import QEngineError, UploadError
from qengine.loader.sources.arrow_ipc import ArrowSource
from qengine.loader.sources.csv import CsvSource
from qengine.loader.sources.ecsv import EcsvSource
from qengine.loader.sources.file import Place
from qengine.loader.sources.fits import FitsSource
from qengine.loader.sources.parquet import ParquetSource
from qengine.loader.sources.source import STREAM, Source, check_same_columns
from qengine.loader.sources.votable import VotableSource
from qengine.tap.upload_scan import UploadLimits, check_xml, sniff, unpack

_TOO_FEW = pa.array([2, 4], pa.int32())
"""Numbers of vertices of a polygon that enclose nothing."""

_OPENERS: dict[str, Callable[[Place], Source]] = {
    "parquet": ParquetSource, "csv": CsvSource, "fits": FitsSource, "votable": VotableSource, "ecsv": EcsvSource,
    "arrow": ArrowSource,
}  # fmt: skip


def read_upload(path: Path, name: str, limits: UploadLimits | None = None) -> pa.Table:
    """Return the table of an uploaded file. Raise `UploadError` that says which upload, what is wrong and where."""
    allowed = limits or UploadLimits()
    with tempfile.TemporaryDirectory(prefix="qengine-upload-") as folder:
        plain = unpack(path, Path(folder) / "plain", name, allowed)
        kind = sniff(plain)
        if kind == "votable":
            check_xml(plain, name, allowed)
        try:
            return _read(_OPENERS[kind](Place(uri=str(plain), label=f"upload {name}", kind=STREAM)), name, allowed)
        except UploadError:
            raise
        except QEngineError as error:
            message = _without_path(error.message, plain, name)
            raise UploadError(message, hint=_without_path(error.hint, plain, name)) from error
        except (pa.ArrowException, ValueError, ArithmeticError, LookupError, TypeError, OSError, RecursionError) as error:
            raise UploadError(f"upload {name}: cannot be read as {kind}: {_without_path(str(error), plain, name)}") from error


def _read(source: Source, name: str, limits: UploadLimits) -> pa.Table:
    check_same_columns([source])
    if len(source.schema) > limits.columns:
        raise UploadError(f"upload {name}: {len(source.schema):,} columns, more than {limits.columns:,}")
    if not len(source.schema):
        raise UploadError(f"upload {name}: it has no columns")
    for column in source.schema.names:
        if not column.strip() or not column.isprintable() or '"' in column:
            raise UploadError(f"upload {name}: {column[:40]!r} cannot be the name of a column", hint="rename it")
    schema = pa.schema([_field(each) for each in source.schema])
    batches: list[pa.RecordBatch] = []
    rows = held = 0
    for batch in source.batches(source.schema.names):
        rows += batch.num_rows
        if rows > limits.rows:
            raise UploadError(
                f"upload {name}: more than {limits.rows:,} rows", hint="send it in pieces, or ask the operators for a larger limit"
            )
        batch = _normal(batch, schema, name)
        held += batch.nbytes
        if held > limits.memory_bytes:
            raise UploadError(f"upload {name}: its rows need more than {limits.memory_bytes:,} bytes")
        batches.append(batch)
    return pa.Table.from_batches(batches, schema)


def _field(column: pa.Field) -> pa.Field:
    if pa.types.is_null(column.type):  # whose writer had nothing to tell its type by
        column = column.with_type(pa.string())
    kind = from_field(column)
    # A geometry is of doubles here, of whatever floating-point numbers it came.
    exact = from_field(column.with_type(pa.list_(pa.float64()))) if kind.name == "FLOAT[]" else kind
    return pa.field(column.name, to_arrow(exact if exact.is_geometry else kind), metadata=column.metadata)


def _normal(batch: pa.RecordBatch, schema: pa.Schema, name: str) -> pa.RecordBatch:
    columns = [_values(each, field.type) for each, field in zip(batch.columns, schema, strict=True)]
    for values, field in zip(columns, schema, strict=True):
        _check_lengths(values, field, name)
    return pa.record_batch(columns, schema=schema)


def _check_lengths(values: pa.Array, field: pa.Field, name: str) -> None:
    """Raise `UploadError` if a value has not as many elements as its xtype has."""
    kind = from_field(field)
    wanted = length_of(kind)
    if wanted is None and not kind.is_geometry:
        return
    found = pc.fill_null(pc.list_value_length(values), wanted or 0)
    is_wrong = pc.not_equal(found, wanted) if wanted else pc.or_(pc.equal(pc.bit_wise_and(found, 1), 1), pc.is_in(found, _TOO_FEW))
    if pc.any(is_wrong).as_py():
        count = found.filter(is_wrong)[0].as_py()
        raise UploadError(
            f"upload {name}: column {field.name!r}: {count} numbers are no {kind.xtype}",
            hint="send NULL where there is none, or leave the xtype out",
        )


def _values(values: pa.Array, wanted: pa.DataType) -> pa.Array:
    found = values if values.type == wanted else values.cast(wanted)
    if pa.types.is_floating(wanted) and pc.any(pc.is_nan(found)).as_py():
        return pc.if_else(pc.is_nan(found), pa.scalar(None, wanted), found)
    return found


def _without_path(text: str, path: Path, name: str) -> str:
    return text.replace(str(path), f"upload {name}")
