"""A result with a column of every type and the values that break writers."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pyarrow as pa

from qengine.catalog import types as t
from qengine.catalog.output import OutputColumn
from qengine.tap.formats.writer import ResultHeader

_WHEN = dt.datetime(2026, 11, 22, 1, 2, 3, 450000)

# name, type, Arrow type, values
_SPEC = (
    ("flag", t.BOOLEAN, None, [True, False, None, True]),
    ("tiny", t.SqlType("TINYINT"), None, [-128, 0, None, 127]),
    ("small", t.SMALLINT, None, [-32768, 0, None, 32767]),
    ("whole", t.INTEGER, None, [-(2**31), 0, None, 2**31 - 1]),
    ("source_id", t.BIGINT, None, [-(2**63), 0, None, 2**63 - 1]),
    ("huge", t.HUGEINT, None, [Decimal(10**30), Decimal(0), None, Decimal(-1)]),
    ("natural", t.SqlType("UBIGINT"), None, [0, 2**64 - 1, None, 5]),
    ("mag", t.FLOAT, None, [1.5, -0.25, None, 3.4e38]),
    ("ra", t.DOUBLE, None, [0.1, 1e-300, None, 359.9999999999999]),
    ("odd", t.DOUBLE, None, [float("inf"), float("-inf"), None, float("nan")]),
    ("price", t.SqlType("DECIMAL(10,2)"), None, [Decimal("1.25"), Decimal("-3.50"), None, Decimal("0.00")]),
    ("name", t.VARCHAR, None, ["NGC 224", "", None, 'a<b & "c" \t, \n d>]]>']),
    ("greek", t.VARCHAR, None, ["αβγ", "日本", None, "𝛼 Centauri"]),
    ("blob", t.BLOB, None, [b"\x00\xff", b"", None, b"abc"]),
    ("day", t.DATE, None, [dt.date(2026, 1, 2), dt.date(1970, 1, 1), None, dt.date(1900, 12, 31)]),
    ("when", t.TIMESTAMP, None, [_WHEN, dt.datetime(1970, 1, 1), None, dt.datetime(2000, 1, 1, 0, 0, 0, 1)]),
    ("place", t.POINT, None, [[10.5, -20.25], [0.0, 90.0], None, [359.5, 0.0]]),
    ("shape", t.POLYGON, None, [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [], None, [0.5] * 8]),
)

COLUMNS = tuple(
    OutputColumn(name=name, type=kind, unit="deg" if name == "ra" else "", description="Right <ascension>" if name == "ra" else "")
    for name, kind, _, _ in _SPEC
)
SCHEMA = pa.schema([pa.field(name, arrow or t.to_arrow(kind)) for name, kind, arrow, _ in _SPEC])
VALUES = {name: values for name, _, _, values in _SPEC}
HEADER = ResultHeader(
    columns=COLUMNS,
    schema=SCHEMA,
    statement="SELECT \"a\" FROM b WHERE c < 'd' & e",
    warnings=("CASE is an extension",),
    snapshots={"demo": 3},
)


def sample_table(*, repeat: int = 1) -> pa.Table:
    """Return the sample rows, `repeat` times over."""
    arrays = [pa.array(VALUES[field.name] * repeat, field.type) for field in SCHEMA]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)
