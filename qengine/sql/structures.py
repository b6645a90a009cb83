"""Members of lists, slices, and fields of structures: `l[1]`, `l[2:5]`, `s.field`, `[1, 2, 3]`.

Nested light curves are stored as lists or as structures of lists. The first member of a list is 1, the last one -1; a member that
is not there is NULL. A name with points is first a column of a table, as ever; only if there is none, the front part is the
column and the rest are fields.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sqlglot import exp

from qengine.catalog.types import BIGINT, SqlType, struct_fields, to_adql
from qengine.errors import QueryTypeError, UnknownNameError
from qengine.sql.nodes import call, cast, is_null, text_literal, type_of, typed
from qengine.sql.scopes import Context, matches
from qengine.sql.spans import nearest

if TYPE_CHECKING:
    from qengine.sql.expressions import Expressions

_ABOUT = ("unit", "ucd", "utype", "description", "system")


def bind_bracket(binder: Expressions, node: exp.Bracket) -> exp.Expr:
    """Bind `list[n]`, `list[a:b]` or `structure['field']`."""
    subject = binder.value(node.this)
    kind = type_of(subject)
    if len(node.expressions) != 1:
        raise binder.error(QueryTypeError, node, "brackets hold one number, or two with a colon between them")
    (place,) = node.expressions
    if struct_fields(kind) and isinstance(place, exp.Literal) and place.is_string:
        return bind_field(binder.context, subject, exp.Identifier(this=str(place.this), quoted=False), node)
    if not kind.name.endswith("[]"):
        raise binder.error(QueryTypeError, node, f"only lists have members, this is {to_adql(kind)}")
    if isinstance(place, exp.Slice):
        if place.args.get("step") is not None:
            raise binder.error(QueryTypeError, node, "a slice has no step")
        bounds = [_place(binder, place.args.get(key), default) for key, default in (("this", 1), ("expression", -1))]
        return _described(typed(call("list_slice", subject, *bounds), SqlType(kind.name)), subject)
    member = call("list_extract", subject, _place(binder, place, 1))
    return _described(typed(member, SqlType(kind.name[:-2])), subject)


def _place(binder: Expressions, node: exp.Expr | None, default: int) -> exp.Expr:
    bound = binder.value(node) if node is not None else binder.value(exp.Literal.number(abs(default)))
    if node is None and default < 0:
        bound = typed(exp.Neg(this=bound), type_of(bound))
    if not type_of(bound).is_integer and not is_null(bound):
        assert node is not None
        raise binder.error(QueryTypeError, node, f"the place in a list is an integer, not {to_adql(type_of(bound))}")
    return cast(bound, BIGINT)


def bind_list(binder: Expressions, node: exp.Array) -> exp.Expr:
    """Bind `[a, b, c]`."""
    if not node.expressions:
        raise binder.error(QueryTypeError, node, "an empty list has no type")
    kind, members = binder.unify([binder.value(part) for part in node.expressions], node)
    if is_null(members[0]) and all(map(is_null, members)):
        raise binder.error(QueryTypeError, node, "a list of NULLs has no type")
    if kind.name.endswith("[]") or kind.is_geometry:
        raise binder.error(QueryTypeError, node, "a list of lists is not supported")
    whole = SqlType(f"{kind.name}[]")
    made = typed(exp.Array(expressions=members), SqlType("LIST"))
    # DuckDB may find a narrower type for constants than the one that is bound
    return cast(made, whole)


def bind_field(context: Context, subject: exp.Expr, name: exp.Identifier, node: exp.Expr) -> exp.Expr:
    """Return the field `name` of a bound structure."""
    fields = struct_fields(type_of(subject))
    if not fields:
        kind = to_adql(type_of(subject))
        raise context.error(QueryTypeError, node, f"{name.name} cannot be a field: a value of type {kind} has none")
    found = [field for field in fields if matches(name, field)]
    if not found:
        raise context.error(UnknownNameError, node, f"there is no field {name.name}", nearest(name.name, fields))
    return typed(call("struct_extract", subject, text_literal(found[0])), fields[found[0]])


def bind_path(context: Context, subject: exp.Expr, path: Sequence[exp.Identifier], node: exp.Expr) -> exp.Expr:
    """Return the field of a field of .. a bound structure."""
    for name in path:
        subject = bind_field(context, subject, name, node)
    return subject


def _described(bound: exp.Expr, subject: exp.Expr) -> exp.Expr:
    """What is known of a list is known of its members."""
    for key in _ABOUT:
        if key in subject.meta:
            bound.meta[key] = subject.meta[key]
    return bound
