"""CAST: the target types of ADQL and what DuckDB makes of them."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from sqlglot import exp

from qengine.catalog.types import (
    BIGINT,
    BOOLEAN,
    CIRCLE,
    DATE,
    DOUBLE,
    FLOAT,
    INTEGER,
    POINT,
    POLYGON,
    SMALLINT,
    TIMESTAMP,
    VARCHAR,
    SqlType,
    to_adql,
)  # fmt: skip
from qengine.errors import QueryTypeError, UnsupportedQueryError
from qengine.sql.coercion import is_temporal
from qengine.sql.nodes import call, cast, is_null, number, span_of_bound, text_literal, text_of, type_of, typed
from qengine.sql.regions_text import region_from_text
from qengine.sql.scopes import Context
from qengine.sql.spans import nearest

_STANDARD: dict[str, SqlType] = {
    "CHAR": VARCHAR, "CHARACTER": VARCHAR, "VARCHAR": VARCHAR, "CHARACTER VARYING": VARCHAR, "CHAR VARYING": VARCHAR,
    "SMALLINT": SMALLINT, "INTEGER": INTEGER, "INT": INTEGER, "BIGINT": BIGINT, "REAL": FLOAT, "DOUBLE PRECISION": DOUBLE,
    "TIMESTAMP": TIMESTAMP, "POINT": POINT, "CIRCLE": CIRCLE, "POLYGON": POLYGON,
}  # fmt: skip
_EXTENDED: dict[str, SqlType] = {"DOUBLE": DOUBLE, "BOOLEAN": BOOLEAN, "DATE": DATE, "TEXT": VARCHAR, "STRING": VARCHAR}


def bind_cast(context: Context, node: exp.Cast, value: exp.Expr) -> exp.Expr:
    """Return the bound form of CAST(value AS target)."""
    target = str(node.args["to"].name)
    match = re.fullmatch(r"([A-Z ]+?)(?:\((\d+)\))?", target)
    name, length = (match[1], match[2]) if match else (target, None)
    kind = _STANDARD.get(name)
    if kind is None and context.language.has_extensions and name in _EXTENDED:
        context.extension(f"CAST AS {name}")
        kind = _EXTENDED[name]
    if kind is None:
        hint = nearest(name, _STANDARD)
        if name == "FLOAT":
            hint = "write REAL (32 bits) or DOUBLE PRECISION (64 bits)"
        raise context.error(QueryTypeError, node, f"there is no type {target} to cast to", hint)
    if length is not None and kind is not VARCHAR:
        raise context.error(QueryTypeError, node, f"{name} takes no length")
    if kind.is_geometry:
        text = text_of(value)
        if text is None:
            raise context.error(UnsupportedQueryError, node, f"CAST AS {name} takes a text in quotes")
        return region_from_text(context, node, f"{name} {text}")
    found = type_of(value)
    if not is_null(value) and not _is_castable(found, kind):
        raise context.error(QueryTypeError, node, f"{to_adql(found)} cannot be cast to {name}")
    text = text_of(value)
    if text is not None and is_temporal(kind):
        value = text_literal(canonical_time(text, value), span_of_bound(value))
    result = cast(value, kind)
    if length is not None:
        if int(length) < 1:
            raise context.error(QueryTypeError, node, "the length of a text type is at least 1")
        if int(length) <= 2**31 - 1:
            result = typed(call("left", result, number(int(length))), VARCHAR, span_of_bound(value))
    return result


def canonical_time(text: str, node: exp.Expr) -> str:
    """Return a time as DuckDB reads it: `YYYY-MM-DD hh:mm:ss.ffffff`, UTC. Raise `QueryTypeError` for anything else."""
    try:
        value = datetime.fromisoformat(text.strip())
    except ValueError as error:
        message = f"'{text}' is not a time"
        raise QueryTypeError(message, span=span_of_bound(node), hint="write YYYY-MM-DDThh:mm:ss") from error
    if value.tzinfo is not None:
        value = value.astimezone(UTC).replace(tzinfo=None)
    return value.isoformat(sep=" ")


def _is_castable(found: SqlType, target: SqlType) -> bool:
    if found.is_geometry or found.name.endswith("[]"):
        return False
    if target.is_text or found.is_text or found.name == target.name:
        return True
    if is_temporal(target) or is_temporal(found):
        return is_temporal(target) and is_temporal(found)
    return (found.is_numeric or found.is_boolean) and (target.is_numeric or target.is_boolean)
