"""Types of operators: what may be compared with what, and what arithmetic gives.

Integers narrower than INTEGER are widened before arithmetic, so that DuckDB does not overflow where ADQL would not; unsigned ones
become signed. DECIMAL columns compute as DOUBLE.
"""

from __future__ import annotations

from qengine.catalog.types import BIGINT, DATE, DOUBLE, FLOAT, HUGEINT, INTEGER, NULL, TIMESTAMP, SqlType

_WIDENED = {
    "TINYINT": INTEGER, "SMALLINT": INTEGER, "INTEGER": INTEGER, "UTINYINT": INTEGER, "USMALLINT": INTEGER, "UINTEGER": BIGINT,
    "BIGINT": BIGINT, "UBIGINT": HUGEINT, "HUGEINT": HUGEINT, "BOOLEAN": INTEGER, "FLOAT": FLOAT, "DOUBLE": DOUBLE,
}  # fmt: skip
_RANK = (INTEGER, BIGINT, HUGEINT, FLOAT, DOUBLE)


def widened(sql_type: SqlType) -> SqlType | None:
    """Return the type in which a value takes part in arithmetic; None if it is not a number."""
    if sql_type.name.startswith("DECIMAL"):
        return DOUBLE
    return _WIDENED.get(sql_type.name)


def arithmetic_type(left: SqlType, right: SqlType) -> SqlType | None:
    """Return the type of a sum of two types; None if one is not a number. NULL gives the other's type."""
    if left == NULL:
        return DOUBLE if right == NULL else widened(right)
    if right == NULL:
        return widened(left)
    first, second = widened(left), widened(right)
    if first is None or second is None:
        return None
    return _RANK[max(_RANK.index(first), _RANK.index(second))]


def common_type(left: SqlType, right: SqlType) -> SqlType | None:
    """Return the type that holds the values of both (COALESCE, CASE, UNION, IN); None if there is none."""
    if left == right or right == NULL:
        return left
    if left == NULL:
        return right
    if left.name == right.name:
        return SqlType(left.name)
    if left.is_numeric and right.is_numeric:
        return arithmetic_type(left, right)
    if {left.name, right.name} == {"DATE", "TIMESTAMP"}:
        return TIMESTAMP
    return None


def is_temporal(sql_type: SqlType) -> bool:
    return sql_type.name in (DATE.name, TIMESTAMP.name)


def are_comparable(left: SqlType, right: SqlType) -> bool:
    """Say whether `=` and `<` mean something between two types as they are; literals and booleans are handled before."""
    if left.is_geometry or right.is_geometry:
        return False
    return common_type(left, right) is not None
