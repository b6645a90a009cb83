"""What may be called: names, arities, kinds of arguments, result types, and the DuckDB function that does it.

A function that is not in this table cannot reach DuckDB. Functions whose cost is not bounded by the size of their input
(`repeat`, `lpad`, `printf`, `range`, `levenshtein`, ...) are left out on purpose: DuckDB's limits do not bind scalar
functions. Geometry is in `qengine.sql.geometry`, because its arguments are not values.

Kinds of arguments: `double` (any number, cast to DOUBLE), `number` (kept), `integer`, `text`, `any` (kept), `same` (cast to the
common type of all `same` arguments), `time`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from qengine.catalog.types import BIGINT, DOUBLE, INTEGER, VARCHAR, SqlType


class Role(Enum):
    """Where a call may stand."""

    SCALAR = "scalar"
    AGGREGATE = "aggregate"
    WINDOW = "window"
    GEOMETRY = "geometry"


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """One callable name. `arguments` lists kinds; the last `optional` of them may be left out, the last one repeated if
    `is_variadic`. `result` is a type, or None: the type of the first argument (the common type for `same`).
    `unit` is the unit of the result, "=" for that of the first argument. `target` is DuckDB's name."""

    name: str
    arguments: tuple[str, ...]
    target: str
    result: SqlType | None = None
    role: Role = Role.SCALAR
    optional: int = 0
    is_variadic: bool = False
    unit: str = ""
    is_extension: bool = False
    is_volatile: bool = False

    def takes(self, count: int) -> bool:
        """Say whether the function can be called with `count` arguments."""
        least = len(self.arguments) - self.optional
        return count >= least and (self.is_variadic or count <= len(self.arguments))

    @property
    def arity(self) -> str:
        """The numbers of arguments that it takes, in words."""
        most, least = len(self.arguments), len(self.arguments) - self.optional
        if self.is_variadic:
            return f"at least {least}"
        return str(most) if most == least else f"{least} to {most}"


def _maths(*names: str, extension: bool = False, unit: str = "") -> tuple[Function, ...]:
    targets = {"CEILING": "ceil", "LOG": "ln", "TRUNCATE": "trunc"}
    return tuple(
        Function(
            name=name,
            arguments=("double",),
            target=targets.get(name, name.lower()),
            result=DOUBLE,
            unit=unit,
            is_extension=extension,
        )
        for name in names
    )


def _aggregates(*names: str, extension: bool = True) -> tuple[Function, ...]:
    return tuple(
        Function(name=name, arguments=("double",), target=name.lower(), result=DOUBLE, role=Role.AGGREGATE, is_extension=extension)
        for name in names
    )


def _windows(*names: str, result: SqlType = BIGINT) -> tuple[Function, ...]:
    return tuple(
        Function(name=name, arguments=(), target=name.lower(), result=result, role=Role.WINDOW, is_extension=True) for name in names
    )


def _geometries(*names: str) -> tuple[Function, ...]:
    return tuple(
        Function(name=name, arguments=("any",), target="", role=Role.GEOMETRY, is_variadic=True, optional=1) for name in names
    )


def _text(name: str, *arguments: str, result: SqlType = VARCHAR, optional: int = 0, target: str = "") -> Function:
    return Function(
        name=name, arguments=arguments, target=target or name.lower(), result=result, optional=optional, is_extension=True
    )


_ADQL = (
    Function(name="ABS", arguments=("number",), target="abs", unit="="),
    *_maths("CEILING", "FLOOR", unit="="),
    *_maths("EXP", "LOG", "LOG10", "SQRT", "SIN", "COS", "TAN", "COT"),
    *_maths("ACOS", "ASIN", "ATAN", "RADIANS", unit="rad"),
    *_maths("DEGREES", unit="deg"),
    Function(name="ATAN2", arguments=("double", "double"), target="atan2", result=DOUBLE, unit="rad"),
    Function(name="MOD", arguments=("number", "number"), target="mod", unit="="),
    Function(name="PI", arguments=(), target="pi", result=DOUBLE),
    Function(name="POWER", arguments=("double", "double"), target="pow", result=DOUBLE),
    Function(name="RAND", arguments=("integer",), target="random", result=DOUBLE, optional=1, is_volatile=True),
    Function(name="ROUND", arguments=("double", "integer"), target="round", result=DOUBLE, optional=1, unit="="),
    Function(name="TRUNCATE", arguments=("double", "integer"), target="trunc", result=DOUBLE, optional=1, unit="="),
    Function(name="COALESCE", arguments=("same",), target="coalesce", is_variadic=True, unit="="),
    Function(name="LOWER", arguments=("text",), target="lower", result=VARCHAR),
    Function(name="UPPER", arguments=("text",), target="upper", result=VARCHAR),
    Function(name="IN_UNIT", arguments=("number", "text"), target="", result=DOUBLE),
    Function(name="COUNT", arguments=("any",), target="count", result=BIGINT, role=Role.AGGREGATE),
    Function(name="SUM", arguments=("number",), target="sum", role=Role.AGGREGATE, unit="="),
    Function(name="AVG", arguments=("double",), target="avg", result=DOUBLE, role=Role.AGGREGATE, unit="="),
    Function(name="MIN", arguments=("any",), target="min", role=Role.AGGREGATE, unit="="),
    Function(name="MAX", arguments=("any",), target="max", role=Role.AGGREGATE, unit="="),
    *_geometries("POINT", "CIRCLE", "BOX", "POLYGON", "REGION", "CONTAINS", "INTERSECTS", "DISTANCE", "AREA", "CENTROID"),
    *_geometries("COORD1", "COORD2", "COORDSYS"),
)

_EXTENDED = (
    *_maths("LN", "LOG2", "CBRT", "SINH", "COSH", "TANH", "ASINH", "ACOSH", "ATANH", extension=True),
    *_maths("CEIL", "TRUNC", extension=True, unit="="),
    Function(name="SIGN", arguments=("double",), target="sign", result=INTEGER, is_extension=True),
    Function(name="POW", arguments=("double", "double"), target="pow", result=DOUBLE, is_extension=True),
    Function(name="ISNAN", arguments=("double",), target="isnan", result=SqlType("BOOLEAN"), is_extension=True),
    Function(name="ISFINITE", arguments=("double",), target="isfinite", result=SqlType("BOOLEAN"), is_extension=True),
    Function(name="NULLIF", arguments=("same", "same"), target="nullif", unit="=", is_extension=True),
    Function(name="IFNULL", arguments=("same", "same"), target="coalesce", unit="=", is_extension=True),
    Function(name="GREATEST", arguments=("same",), target="greatest", is_variadic=True, unit="=", is_extension=True),
    Function(name="LEAST", arguments=("same",), target="least", is_variadic=True, unit="=", is_extension=True),
    _text("SUBSTRING", "text", "integer", "integer", optional=1),
    _text("SUBSTR", "text", "integer", "integer", optional=1, target="substring"),
    _text("LEFT", "text", "integer"),
    _text("RIGHT", "text", "integer"),
    _text("LENGTH", "text", result=BIGINT),
    _text("CHAR_LENGTH", "text", result=BIGINT, target="length"),
    _text("TRIM", "text", "text", optional=1),
    _text("LTRIM", "text", "text", optional=1),
    _text("RTRIM", "text", "text", optional=1),
    _text("REVERSE", "text"),
    _text("STRPOS", "text", "text", result=BIGINT),
    _text("STARTS_WITH", "text", "text", result=SqlType("BOOLEAN")),
    *_aggregates("STDDEV", "STDDEV_POP", "STDDEV_SAMP", "VARIANCE", "VAR_POP", "VAR_SAMP", "MEDIAN"),
    Function(
        name="QUANTILE", arguments=("double", "double"), target="quantile_cont", result=DOUBLE, role=Role.AGGREGATE,
        unit="=", is_extension=True,
    ),
    Function(
        name="CORR", arguments=("double", "double"), target="corr", result=DOUBLE, role=Role.AGGREGATE, is_extension=True,
    ),
    Function(
        name="APPROX_COUNT_DISTINCT", arguments=("any",), target="approx_count_distinct", result=BIGINT, role=Role.AGGREGATE,
        is_extension=True,
    ),
    *_windows("ROW_NUMBER", "RANK", "DENSE_RANK"),
    *_windows("PERCENT_RANK", "CUME_DIST", result=DOUBLE),
    Function(
        name="NTILE", arguments=("integer",), target="ntile", result=BIGINT, role=Role.WINDOW, is_extension=True,
    ),
    *(
        Function(
            name=name, arguments=("any", "integer", "any"), target=name.lower(), role=Role.WINDOW, optional=2, unit="=",
            is_extension=True,
        )
        for name in ("LAG", "LEAD")
    ),
    *(
        Function(name=name, arguments=("any",), target=name.lower(), role=Role.WINDOW, unit="=", is_extension=True)
        for name in ("FIRST_VALUE", "LAST_VALUE")
    ),
    Function(
        name="NTH_VALUE", arguments=("any", "integer"), target="nth_value", role=Role.WINDOW, unit="=", is_extension=True,
    ),
)  # fmt: skip

FUNCTIONS: dict[str, Function] = {function.name: function for function in (*_ADQL, *_EXTENDED)}
"""All functions by upper-case name; geometry included, so that suggestions know it."""


def known_names(*, extensions: bool) -> tuple[str, ...]:
    """Return the names that a profile with or without extensions may call, for suggestions."""
    return tuple(name for name, function in FUNCTIONS.items() if extensions or not function.is_extension)
