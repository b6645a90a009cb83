"""The one table of types: DuckDB, Arrow, ADQL (TAP_SCHEMA) and VOTable names of the same thing.

A `SqlType` is what a column or an expression has. Its `name` is DuckDB's spelling; `xtype` refines it as DALI does (a
`DOUBLE[]` that is a point, a circle or a polygon; a `TIMESTAMP`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import pyarrow as pa

from qengine.errors import SchemaError


@dataclass(frozen=True, slots=True)
class SqlType:
    """The type of a column or expression. `name` is DuckDB's; `xtype` is DALI's or empty."""

    name: str
    xtype: str = ""

    @property
    def is_integer(self) -> bool:
        return self.name in _INTEGERS

    @property
    def is_float(self) -> bool:
        return self.name in ("FLOAT", "DOUBLE")

    @property
    def is_numeric(self) -> bool:
        return self.is_integer or self.is_float or self.name.startswith("DECIMAL")

    @property
    def is_text(self) -> bool:
        return self.name == "VARCHAR"

    @property
    def is_boolean(self) -> bool:
        return self.name == "BOOLEAN"

    @property
    def is_geometry(self) -> bool:
        return self.xtype in ("point", "circle", "polygon")

    def __deepcopy__(self, memo: object) -> SqlType:
        """A value is its own copy: trees that carry types are copied often."""
        return self

    def __str__(self) -> str:
        return self.xtype.upper() if self.is_geometry else self.name


BOOLEAN = SqlType("BOOLEAN")
SMALLINT = SqlType("SMALLINT")
INTEGER = SqlType("INTEGER")
BIGINT = SqlType("BIGINT")
HUGEINT = SqlType("HUGEINT")
FLOAT = SqlType("FLOAT")
DOUBLE = SqlType("DOUBLE")
VARCHAR = SqlType("VARCHAR")
BLOB = SqlType("BLOB")
DATE = SqlType("DATE")
TIMESTAMP = SqlType("TIMESTAMP", "timestamp")
POINT = SqlType("DOUBLE[]", "point")
CIRCLE = SqlType("DOUBLE[]", "circle")
POLYGON = SqlType("DOUBLE[]", "polygon")
NULL = SqlType("NULL")

_INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT")


@dataclass(frozen=True, slots=True)
class VOTableType:
    """How a type is written in a VOTable FIELD; empty strings mean that the attribute is left out."""

    datatype: str
    arraysize: str = ""
    xtype: str = ""


# DuckDB name -> (Arrow, ADQL 2.1 / TAP_SCHEMA, VOTable)
_TABLE: dict[str, tuple[pa.DataType, str, VOTableType]] = {
    "BOOLEAN": (pa.bool_(), "BOOLEAN", VOTableType("boolean")),
    "TINYINT": (pa.int8(), "SMALLINT", VOTableType("short")),
    "SMALLINT": (pa.int16(), "SMALLINT", VOTableType("short")),
    "INTEGER": (pa.int32(), "INTEGER", VOTableType("int")),
    "BIGINT": (pa.int64(), "BIGINT", VOTableType("long")),
    "UTINYINT": (pa.uint8(), "SMALLINT", VOTableType("short")),
    "USMALLINT": (pa.uint16(), "INTEGER", VOTableType("int")),
    "UINTEGER": (pa.uint32(), "BIGINT", VOTableType("long")),
    "UBIGINT": (pa.uint64(), "VARCHAR", VOTableType("char", "*")),
    "HUGEINT": (pa.decimal128(38, 0), "VARCHAR", VOTableType("char", "*")),
    "FLOAT": (pa.float32(), "REAL", VOTableType("float")),
    "DOUBLE": (pa.float64(), "DOUBLE", VOTableType("double")),
    "VARCHAR": (pa.string(), "VARCHAR", VOTableType("unicodeChar", "*")),
    "BLOB": (pa.binary(), "BLOB", VOTableType("unsignedByte", "*")),
    "DATE": (pa.date32(), "TIMESTAMP", VOTableType("char", "*", "timestamp")),
    "TIMESTAMP": (pa.timestamp("us"), "TIMESTAMP", VOTableType("char", "*", "timestamp")),
    "UUID": (pa.string(), "VARCHAR", VOTableType("char", "*")),
    "NULL": (pa.null(), "VARCHAR", VOTableType("char", "*")),
}

_GEOMETRY_SIZE = {"point": "2", "circle": "3", "polygon": "*"}
_SIZES = {**_GEOMETRY_SIZE, "interval": "2"}
"""xtypes of arrays -> their arraysize"""


def to_arrow(sql_type: SqlType) -> pa.DataType:
    """Return the Arrow type in which values of `sql_type` travel. Raise `SchemaError` for a type that has none."""
    name = sql_type.name
    if name.endswith("[]"):
        return pa.list_(to_arrow(SqlType(name[:-2])))
    if name.startswith("STRUCT("):
        return pa.struct([pa.field(field, to_arrow(kind)) for field, kind in struct_fields(sql_type).items()])
    if found := _TABLE.get(name):
        return found[0]
    if match := re.fullmatch(r"DECIMAL\((\d+),\s*(\d+)\)", name):
        return pa.decimal128(int(match[1]), int(match[2]))
    raise SchemaError(f"no Arrow type for {name}")


def from_arrow(arrow: pa.DataType) -> SqlType:
    """Return the type of values that arrive as `arrow`; dictionaries and extensions count as their values.

    Raise `SchemaError` for a type that queries cannot use.
    """
    if pa.types.is_dictionary(arrow):
        return from_arrow(arrow.value_type)
    if pa.types.is_large_string(arrow) or pa.types.is_string_view(arrow):
        return VARCHAR
    if pa.types.is_large_binary(arrow) or pa.types.is_fixed_size_binary(arrow) or pa.types.is_binary_view(arrow):
        return BLOB
    if pa.types.is_float16(arrow):
        return FLOAT
    if pa.types.is_timestamp(arrow):
        return TIMESTAMP
    if pa.types.is_date(arrow):
        return DATE
    if pa.types.is_decimal(arrow):
        return SqlType(f"DECIMAL({arrow.precision},{arrow.scale})")
    if pa.types.is_list(arrow) or pa.types.is_large_list(arrow) or pa.types.is_fixed_size_list(arrow):
        return SqlType(from_arrow(arrow.value_type).name + "[]")
    if pa.types.is_struct(arrow):
        return struct_type({field.name: from_arrow(field.type) for field in arrow})
    for name, (candidate, _, _) in _TABLE.items():
        if arrow == candidate:
            return TIMESTAMP if name == "TIMESTAMP" else SqlType(name)
    raise SchemaError(f"columns of Arrow type {arrow} are not supported", hint="convert the column or leave it out")


def from_field(field: pa.Field) -> SqlType:
    """Return the type of a column that arrives as `field`, with the xtype that its metadata names where values of such a type can
    have it. Raise `SchemaError` as `from_arrow` does."""
    found = from_arrow(field.type)
    xtype = (field.metadata or {}).get(b"xtype", b"").decode()
    if found.xtype or xtype in ("", TIMESTAMP.xtype):
        return found
    if xtype in _GEOMETRY_SIZE:
        return SqlType(found.name, xtype) if found.name == "DOUBLE[]" else found
    return found if xtype in _SIZES and not found.name.endswith("[]") else SqlType(found.name, xtype)


def length_of(sql_type: SqlType) -> int | None:
    """Return how many elements values of a type have, None if that differs."""
    size = _SIZES.get(sql_type.xtype, "*") if sql_type.name.endswith("[]") else "*"
    return None if size == "*" else int(size)


def struct_type(fields: Mapping[str, SqlType]) -> SqlType:
    """Return the type of a structure; its fields are in order."""
    parts = ", ".join(f'"{name.replace(chr(34), chr(34) * 2)}" {kind.name}' for name, kind in fields.items())
    return SqlType(f"STRUCT({parts})")


def struct_fields(sql_type: SqlType) -> dict[str, SqlType]:
    """Return names and types of the fields of a structure, in order; empty for other types."""
    name = sql_type.name
    if not (name.startswith("STRUCT(") and name.endswith(")")):
        return {}
    found: dict[str, SqlType] = {}
    inside, start, depth, is_quoted = name[len("STRUCT(") : -1] + ",", 0, 0, False
    for place, character in enumerate(inside):
        is_quoted ^= character == '"'
        depth += 0 if is_quoted else {"(": 1, ")": -1}.get(character, 0)
        if character == "," and depth == 0 and not is_quoted:
            match = re.fullmatch(r'\s*(?:"((?:[^"]|"")*)"|(\S+))\s+(.*)', inside[start:place], re.DOTALL)
            if match is not None:
                label = match[1].replace('""', '"') if match[1] is not None else match[2]
                found[label] = TIMESTAMP if match[3] == "TIMESTAMP" else SqlType(match[3])
            start = place + 1
    return found


def to_votable(sql_type: SqlType) -> VOTableType:
    """Return datatype, arraysize and xtype of a VOTable FIELD (also what TAP_SCHEMA.columns and /tables say)."""
    if sql_type.is_geometry:
        return VOTableType("double", _GEOMETRY_SIZE[sql_type.xtype], sql_type.xtype)
    if sql_type.name.endswith("[]"):
        element = to_votable(SqlType(sql_type.name[:-2]))
        if element.arraysize:
            return VOTableType("unicodeChar", "*")
        return VOTableType(element.datatype, _SIZES.get(sql_type.xtype, "*"), sql_type.xtype)
    if found := _TABLE.get(sql_type.name):
        return replace(found[2], xtype=sql_type.xtype) if sql_type.xtype and not found[2].xtype else found[2]
    if sql_type.name.startswith("DECIMAL"):
        return VOTableType("double", xtype=sql_type.xtype)
    return VOTableType("unicodeChar", "*")


def to_adql(sql_type: SqlType) -> str:
    """Return the name of the type in ADQL, as messages and documentation show it."""
    if sql_type.is_geometry:
        return sql_type.xtype.upper()
    if found := _TABLE.get(sql_type.name):
        return found[1]
    return "DOUBLE" if sql_type.name.startswith("DECIMAL") else "VARCHAR"
