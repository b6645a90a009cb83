"""One line for one function: the notation in which the function tables are written.

`fn("POWER(x double, y double) -> DOUBLE", "x to the power y.", ("POWER(2, 10)", 1024.0))` makes a `Function`. The signature is what
the documentation shows, and arity, kinds of arguments, type and unit are read from it, so that they cannot differ:

    NAME(arg kind, arg kind, [arg kind], [arg kind..]) -> TYPE unit

Arguments in brackets may be left out; one that ends with `..` may be repeated. TYPE is an ADQL or DuckDB name, or `=`: the type of
the first argument (the common type of all arguments of kind `same`). The unit may be `=` too, or missing.

Kinds of arguments: `double` (any number, cast to DOUBLE), `number` (kept), `integer`, `bigint`, `text`, `boolean`, `any` (kept),
`same` (cast to the common type of all `same` arguments), `time`, `point` (a POINT; two arguments of the target: longitude and
latitude), `list`, `numbers` (a list of numbers), `struct`, `word` (a text in quotes, one of those that the function lists).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from qengine.catalog.types import (
    BIGINT,
    BOOLEAN,
    DATE,
    DOUBLE,
    INTEGER,
    POINT,
    TIMESTAMP,
    VARCHAR,
    SqlType,
)


class Role(Enum):
    """Where a call may stand."""

    SCALAR = "scalar"
    AGGREGATE = "aggregate"
    WINDOW = "window"
    GEOMETRY = "geometry"


Value = int | float | str | bool | list[float] | list[int] | list[str] | None

_TYPES = {
    "DOUBLE": DOUBLE, "INTEGER": INTEGER, "BIGINT": BIGINT, "VARCHAR": VARCHAR, "BOOLEAN": BOOLEAN, "TIMESTAMP": TIMESTAMP,
    "POINT": POINT, "DATE": DATE, "DOUBLE[]": SqlType("DOUBLE[]"), "BIGINT[]": SqlType("BIGINT[]"),
    "VARCHAR[]": SqlType("VARCHAR[]"),
}  # fmt: skip
_KINDS = frozenset(
    [
        "double",
        "number",
        "integer",
        "bigint",
        "text",
        "boolean",
        "any",
        "same",
        "time",
        "point",
        "list",
        "numbers",
        "struct",
        "word",
        "geometry",
    ]
)
_SHOWN = {
    "double": "DOUBLE", "number": "NUMERIC", "integer": "INTEGER", "bigint": "BIGINT", "text": "VARCHAR", "boolean": "BOOLEAN",
    "any": "ANY", "same": "ANY", "time": "TIMESTAMP", "point": "POINT", "list": "ANY[]", "numbers": "DOUBLE[]", "struct": "STRUCT",
    "word": "VARCHAR", "geometry": "GEOMETRY", "=": "ANY",
    "element": "ANY", "field": "ANY",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """One callable name. `arguments` lists kinds; the last `optional` of them may be left out, the last one repeated if
    `is_variadic`. `result` is a type, or None: the type of the first argument (the common type for `same`).
    `unit` is the unit of the result, "=" for that of the first argument. `target` is DuckDB's name. `forms` are the signatures as
    shown to users, `example` is an expression or a statement over the table of examples, `value` what it gives (None: not
    compared). `is_mergeable` says that partial results of tiles can be merged; other aggregates see all rows in one place.
    `words` are what an argument of kind `word` may say; `needs_cast`: DuckDB's own result has another type than `result`;
    `other_counts`: numbers of arguments of its other forms."""

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
    is_mergeable: bool = False
    forms: tuple[str, ...] = ()
    description: str = ""
    example: str = ""
    value: Value = None
    words: tuple[str, ...] = ()
    needs_cast: bool = False
    other_counts: tuple[int, ...] = ()

    def takes(self, count: int) -> bool:
        """Say whether the function can be called with `count` arguments."""
        if count in self.other_counts:
            return True
        least = len(self.arguments) - self.optional
        return count >= least and (self.is_variadic or count <= len(self.arguments))

    @property
    def arity(self) -> str:
        """The numbers of arguments that it takes, in words."""
        most, least = len(self.arguments), len(self.arguments) - self.optional
        if self.is_variadic:
            return f"at least {least}"
        if self.other_counts:
            return " or ".join(map(str, sorted({least, most, *self.other_counts})))
        return str(most) if most == least else f"{least} to {most}"


_SIGNATURE = re.compile(r"(\w+)\((.*)\) -> (\S+(?:\(\S+\))?)(?: (\S+))?")


def fn(
    signature: str,
    description: str,
    example: tuple[str, Value] | str,
    *,
    target: str = "",
    also: tuple[str, ...] = (),
    role: Role = Role.SCALAR,
    extension: bool = True,
    volatile: bool = False,
    mergeable: bool = False,
    words: tuple[str, ...] = (),
    cast: bool = False,
) -> Function:
    """Read a line of a function table. `also` are signatures of further forms, for the documentation."""
    found = _SIGNATURE.fullmatch(signature)
    if found is None:
        raise ValueError(f"not a signature: {signature}")
    name, inside, result, unit = found[1], found[2], found[3], found[4] or ""
    parts = [part.strip() for part in inside.split(",")] if inside.strip() else []
    kinds = [part.strip("[]").split()[1].removesuffix("..") for part in parts]
    if not set(kinds) <= _KINDS:
        raise ValueError(f"unknown kinds in {signature}")
    text, value = example if isinstance(example, tuple) else (example, None)
    return Function(
        name=name,
        arguments=tuple(kinds),
        target=target or name.lower(),
        result=None if result == "=" else _TYPES.get(result, SqlType(result)),
        role=role,
        optional=sum(part.startswith("[") for part in parts),
        is_variadic=bool(parts) and parts[-1].rstrip("]").endswith(".."),
        unit=unit,
        is_extension=extension,
        is_volatile=volatile,
        is_mergeable=mergeable,
        forms=tuple(_shown(form) for form in (signature, *also)),
        description=description,
        example=text,
        value=value,
        words=words,
        needs_cast=cast,
        other_counts=tuple(form.partition(")")[0].count(",") + 1 for form in also),
    )


def _shown(signature: str) -> str:
    """Return a signature with types instead of kinds, as TAPRegExt wants it: `name(arg TYPE, ..) -> TYPE`."""
    found = _SIGNATURE.fullmatch(signature)
    if found is None:
        raise ValueError(f"not a signature: {signature}")
    parts = [part.strip() for part in found[2].split(",")] if found[2].strip() else []
    shown = []
    for part in parts:
        label, kind = part.strip("[]").split()
        text = f"{label} {_SHOWN[kind.removesuffix('..')]}" + (", .." if kind.endswith("..") else "")
        shown.append(f"[{text}]" if part.startswith("[") else text)
    result = "ANY[]" if found[3] == "list" else _SHOWN.get(found[3], found[3])
    return f"{found[1]}({', '.join(shown)}) -> {result}"


def declarations(form: str) -> tuple[str, ...]:
    """Return a shown signature as plain ones, for each number of arguments: `f(a A, [b B]) -> C` as `f(a A) -> C` and `f(a A, b B)
    -> C`.

    Arguments that may be repeated are declared once.
    """
    name, _, rest = form.partition("(")
    inside, _, result = rest.rpartition(") -> ")
    parts = [part.strip() for part in re.sub(r", \.\.", "", inside).split(",")] if inside else []
    least = sum(not part.startswith("[") for part in parts)
    plain = [part[1:-1] if part.startswith("[") else part for part in parts]
    return tuple(f"{name}({', '.join(plain[:count])}) -> {result}" for count in range(least, len(parts) + 1))
