"""Items of FROM that a statement makes itself: VALUES and UNNEST. Both become derived tables of plain SELECTs.

`(VALUES (1, 'a'), (2, 'b')) AS v(x, y)` is `(SELECT v.x AS x, v.y AS y FROM (VALUES ..) AS v(x, y)) AS v`, with the values of each
column cast to their common type.

`UNNEST(t.l) AS u(x)` is `LATERAL (SELECT unnest(t.l) AS x) AS u`: a row for each member of the list. Several lists go side by side,
the shorter ones filled with NULL. A structure of lists, as nested light curves are stored, is several lists: `UNNEST(t.lc) AS u`
has a column for each of its fields.
"""

from __future__ import annotations

from sqlglot import exp

from qengine.catalog.output import OutputColumn
from qengine.catalog.types import VARCHAR, SqlType, struct_fields, to_adql
from qengine.errors import QueryTypeError
from qengine.sql.expressions import Expressions
from qengine.sql.nodes import call, cast, column, is_null, output_column, quoted, text_literal, type_of, typed
from qengine.sql.scopes import Context

MAX_ROWS = 20_000


def values_query(binder: Expressions, node: exp.Values, alias: str) -> tuple[exp.Select, tuple[OutputColumn, ...]]:
    """Bind VALUES as a SELECT; `alias` is a fresh name for the rows inside it."""
    context = binder.context
    rows = [row.expressions for row in node.expressions]
    width = len(rows[0])
    for row, written in zip(rows, node.expressions, strict=True):
        if len(row) != width:
            message = f"this row of VALUES has {len(row)} values, the first has {width}"
            raise context.error(QueryTypeError, written, message)
    if len(rows) > MAX_ROWS:
        raise context.error(QueryTypeError, node, f"VALUES has more than {MAX_ROWS} rows", "upload the rows as a table")
    names = _names(context, node, [f"col_{place}" for place in range(1, width + 1)])
    kinds, columns = [], []
    for place in range(width):
        kind, members = binder.unify([binder.value(row[place]) for row in rows], node)
        if all(is_null(member) for member in members):
            kind = VARCHAR
        kinds.append(kind)
        columns.append([cast(member, kind) if is_null(member) else member for member in members])
    tuples = [exp.Tuple(expressions=list(row)) for row in zip(*columns, strict=True)]
    made = exp.Values(expressions=tuples, alias=exp.TableAlias(this=quoted(alias), columns=[quoted(name) for name in names]))
    # DuckDB reads the types of the rows by itself: a column of whole numbers may come narrower than it was bound
    items = [cast(typed(column(alias, name), _unknown(kind)), kind) for name, kind in zip(names, kinds, strict=True)]
    return _select(names, items, exp.From(this=made))


def unnest_query(binder: Expressions, node: exp.Unnest, alias: exp.TableAlias) -> tuple[exp.Select, tuple[OutputColumn, ...]]:
    """Bind UNNEST as a SELECT without FROM, over lists of the items before it."""
    context = binder.context
    lists: list[tuple[str, exp.Expr]] = []
    for part in node.expressions:
        bound = binder.value(part)
        fields = struct_fields(type_of(bound))
        if fields and len(node.expressions) == 1:
            for name, kind in fields.items():
                field = typed(call("struct_extract", bound.copy(), text_literal(name)), kind)
                lists.append((name, _checked(context, part, field, f"the field {name}")))
        else:
            lists.append((alias.name, _checked(context, part, bound, "the value")))
    names = _names(context, node, [name for name, _ in lists], alias)
    return _select(names, [_member(bound) for _, bound in lists], None)


def _checked(context: Context, node: exp.Expr, bound: exp.Expr, what: str) -> exp.Expr:
    kind = type_of(bound)
    if not kind.name.endswith("[]"):
        raise context.error(QueryTypeError, node, f"UNNEST takes lists, {what} is {to_adql(kind)}")
    return bound


def _member(bound: exp.Expr) -> exp.Expr:
    kind = SqlType(type_of(bound).name[:-2])
    made = typed(call("unnest", bound), kind)
    for key in ("unit", "ucd", "utype", "description", "system"):
        if key in bound.meta:
            made.meta[key] = bound.meta[key]
    return made


def _unknown(kind: SqlType) -> SqlType:
    """A type that no cast takes for its target."""
    return SqlType("VALUES") if kind.name != "VALUES" else kind


def _names(context: Context, node: exp.Expr, default: list[str], alias: exp.TableAlias | None = None) -> list[str]:
    written = alias if alias is not None else node.args.get("alias")
    names = [name.name for name in written.columns] if isinstance(written, exp.TableAlias) else []
    if names and len(names) != len(default):
        raise context.error(QueryTypeError, node, f"{len(names)} names for {len(default)} columns")
    names, taken = names or default, set[str]()
    for place, name in enumerate(names):
        unique, count = name, 1
        while unique.lower() in taken:
            count += 1
            unique = f"{name}_{count}"
        taken.add(unique.lower())
        names[place] = unique
    return names


def _select(names: list[str], items: list[exp.Expr], source: exp.From | None) -> tuple[exp.Select, tuple[OutputColumn, ...]]:
    aliased = [typed(exp.Alias(this=item, alias=quoted(name)), type_of(item)) for name, item in zip(names, items, strict=True)]
    columns = tuple(output_column(name, item) for name, item in zip(names, items, strict=True))
    return exp.Select(expressions=aliased, **({"from_": source} if source else {})), columns
