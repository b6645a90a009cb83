"""Binding of expressions: each parsed node becomes a new node of the bound tree, typed, or an error with its place.

The bound tree is built anew from the classes that are handled here; a node that is not handled cannot pass. Values come from
`value`, conditions of WHERE, ON, HAVING, CASE and of AND, OR, NOT from `condition`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from sqlglot import exp

from qengine.catalog.types import BIGINT, BOOLEAN, DOUBLE, INTEGER, NULL, TIMESTAMP, VARCHAR, SqlType, to_adql
from qengine.errors import QueryError, QueryTypeError, UnsupportedQueryError
from qengine.sql.bits import BITS, bind_bits
from qengine.sql.casts import bind_cast, canonical_time
from qengine.sql.coercion import are_comparable, arithmetic_type, common_type, is_temporal
from qengine.sql.comparisons import comparison_hint, plain_member
from qengine.sql.language import Language
from qengine.sql.lists import integers_of, list_node
from qengine.sql.nodes import (
    call,
    cast,
    inner,
    is_null,
    number,
    number_of,
    paren,
    span_of_bound,
    text_literal,
    text_of,
    truth,
    type_of,
    typed,
    unit_of,
    with_unit,
)  # fmt: skip
from qengine.sql.operators import as_term, balanced, fold, plain_query, terms_of, unit_after, widen
from qengine.sql.rows import bind_row_in
from qengine.sql.scopes import Context, Scope
from qengine.sql.shape import PREDICATES
from qengine.sql.structures import bind_bracket, bind_field, bind_list, bind_path

_ORDERINGS = (exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE, exp.NullSafeEQ, exp.NullSafeNEQ)
_ARITHMETIC = (exp.Add, exp.Sub, exp.Mul, exp.Div, exp.Mod, exp.IntDiv)


@dataclass(slots=True, kw_only=True)
class Clause:
    """Where an expression stands: its name for messages, and whether aggregates and windows may be in it.

    `aggregates` and `windows` count what was found; `depth` is above 0 inside an aggregate.
    """

    name: str
    takes_aggregates: bool = False
    takes_windows: bool = False
    aggregates: int = 0
    windows: int = 0
    depth: int = 0


@dataclass(slots=True)
class Expressions:
    """Binds the expressions of one clause of one block. `subquery` binds a query inside an expression; `call` a function."""

    scope: Scope
    clause: Clause
    subquery: Callable[[exp.Query, Scope], tuple[exp.Query, tuple[SqlType, ...]]]
    call: Callable[[Expressions, exp.Anonymous], exp.Expr]
    window: Callable[[Expressions, exp.Window], exp.Expr]
    predicate_call: Callable[[Expressions, exp.Expr], exp.Expr | None]
    aggregated: list[exp.Expr] = field(default_factory=list)

    @property
    def context(self) -> Context:
        return self.scope.context

    @property
    def language(self) -> Language:
        return self.scope.context.language

    def error(self, kind: type[QueryError], node: exp.Expr, message: str, hint: str = "") -> QueryError:
        return self.context.error(kind, node, message, hint)

    # -- values -----------------------------------------------------------------------------------------------------------------

    def value(self, node: exp.Expr) -> exp.Expr:
        """Bind an expression that stands for a value."""
        bound = self._value(node)
        if "span" not in bound.meta and (span := self.context.places.span(node)) is not None:
            bound.meta["span"] = span
        return bound

    def _value(self, node: exp.Expr) -> exp.Expr:
        match node:
            case exp.Column() if isinstance(node.this, exp.Star):
                raise self.error(QueryTypeError, node, "'*' is not a value")
            case exp.Column():
                return self._column(node)
            case exp.Dot():
                return self._dotted(node)
            case exp.Bracket():
                return bind_bracket(self, node)
            case exp.Array():
                return bind_list(self, node)
            case exp.Literal():
                return self._literal(node)
            case exp.Null():
                return typed(exp.Null(), NULL)
            case exp.Boolean():
                return truth(bool(node.this))
            case exp.Paren():
                return paren(self.value(inner(node)))
            case exp.Neg():
                return self._negative(node)
            case exp.Anonymous() if node.name.upper() == "GROUPING" and not self.language.is_strict:
                return self._grouping(node)
            case exp.Anonymous():
                return self.call(self, node)
            case exp.Cast():
                return bind_cast(self.context, node, self.value(node.this))
            case exp.DPipe():
                return self._concatenation(node)
            case exp.Case():
                return self._case(node)
            case exp.Window():
                return self.window(self, node)
            case exp.Filter() | exp.WithinGroup():
                return self.window(self, exp.Window(this=node))
            case exp.Subquery() if isinstance(node.this, exp.Query):
                return self._scalar_subquery(node)
            case _ if isinstance(node, _ARITHMETIC):
                return self._arithmetic(node)
            case _ if isinstance(node, BITS):
                return bind_bits(self, node)
            case _ if isinstance(node, PREDICATES):
                return self.condition(node)
        raise self.error(UnsupportedQueryError, node, f"{type(node).__name__} cannot stand here")

    def _column(self, node: exp.Column) -> exp.Expr:
        subject, path = self.scope.resolve_path(node)
        return bind_path(self.context, subject, path, node)

    def _dotted(self, node: exp.Dot) -> exp.Expr:
        if not isinstance(node.expression, exp.Identifier):
            raise self.error(UnsupportedQueryError, node, "the name of a field is expected after the point")
        return bind_field(self.context, self.value(node.this), node.expression, node)

    def _grouping(self, node: exp.Anonymous) -> exp.Expr:
        """GROUPING(a, b): a bit for each key, 1 if the row is not grouped by it. That they are keys is checked by the block."""
        if not self.clause.takes_aggregates or not node.expressions:
            raise self.error(QueryTypeError, node, f"GROUPING with keys of GROUP BY cannot stand in {self.clause.name}")
        self.context.extension("function GROUPING")
        return typed(call("grouping", *(self.value(part) for part in node.expressions)), BIGINT)

    def _literal(self, node: exp.Literal) -> exp.Expr:
        span = self.context.places.span(node)
        if node.is_string:
            return text_literal(str(node.this), span)
        text = str(node.this)
        value: int | float = int(text) if text.isdigit() else float(text)
        if value in (float("inf"), float("-inf")):
            raise self.error(QueryTypeError, node, "the number is too large")
        return number(value, span)

    def _negative(self, node: exp.Neg) -> exp.Expr:
        operand = self.value(node.this)
        value = number_of(operand)
        if value is not None:
            return number(-value, self.context.places.span(node))
        kind = arithmetic_type(type_of(operand), NULL)
        if kind is None:
            raise self._type_error(node, "'-' needs a number", operand)
        return with_unit(typed(exp.Neg(this=paren(cast(operand, kind))), kind), unit_of(operand))

    def _arithmetic(self, node: exp.Expr) -> exp.Expr:
        left, right = self.value(node.this), self.value(node.expression)
        kind = arithmetic_type(type_of(left), type_of(right))
        if kind is None:
            error = self._type_error(node, "arithmetic needs numbers", left, right)
            if type_of(left).is_text or type_of(right).is_text:
                error.hint = "texts are joined with ||, and CAST(x AS DOUBLE PRECISION) makes a number of one"
            raise error
        is_division = isinstance(node, (exp.Div, exp.IntDiv))
        truncates = isinstance(node, exp.IntDiv) or (isinstance(node, exp.Div) and not self.language.has_sql_meaning)
        if isinstance(node, exp.IntDiv) and not kind.is_integer:
            raise self._type_error(node, "DIV needs integers", left, right)
        if isinstance(node, exp.Div) and kind.is_integer and not truncates:
            kind = DOUBLE
        folded = fold(type(node), number_of(left), number_of(right), truncates=truncates and kind.is_integer)
        if folded is not None:
            return number(folded, self.context.places.span(node))
        left, right = paren(widen(left, kind)), paren(widen(right, kind))
        if is_division and kind.is_integer:
            result: exp.Expr = exp.IntDiv(this=left, expression=right)
        else:
            result = type(node)(this=left, expression=right)
        return with_unit(typed(result, kind), unit_after(type(node), left, right))

    def _concatenation(self, node: exp.DPipe) -> exp.Expr:
        left, right = self.value(node.this), self.value(node.expression)
        for side, part in ((left, node.this), (right, node.expression)):
            if not (type_of(side).is_text or is_null(side)):
                raise self._type_error(part, "'||' joins texts", side)
        if is_null(left) or is_null(right):
            return cast(typed(exp.Null(), NULL), VARCHAR)
        return typed(exp.DPipe(this=paren(left), expression=paren(right), safe=True), VARCHAR)

    def _case(self, node: exp.Case) -> exp.Expr:
        subject = node.args.get("this")
        tests: list[exp.Expr] = []
        bound_subject = self.value(subject) if subject is not None else None
        for branch in node.args["ifs"]:
            if bound_subject is None:
                tests.append(self.condition(branch.this))
            else:
                bound_subject, test = self.comparable(bound_subject, self.value(branch.this), branch)
                tests.append(test)
        default = node.args.get("default")
        results = [self.value(branch.args["true"]) for branch in node.args["ifs"]]
        if default is not None:
            results.append(self.value(default))
        kind, results = self.unify(results, node)
        ifs = [exp.If(this=test, true=result) for test, result in zip(tests, results, strict=False)]
        bound = exp.Case(this=bound_subject, ifs=ifs, default=results[-1] if default is not None else None)
        return typed(bound, kind)

    def unify(self, values: list[exp.Expr], node: exp.Expr) -> tuple[SqlType, list[exp.Expr]]:
        """Return the common type of values and the values cast to it; raise `QueryTypeError` if there is none."""
        kind: SqlType | None = NULL
        for item in values:
            found = common_type(kind, type_of(item)) if kind is not None else None
            if found is None and kind is not None:
                raise self._type_error(node, f"no common type of {to_adql(kind)} and {to_adql(type_of(item))}")
            kind = found
        assert kind is not None
        if kind == NULL:
            return kind, values
        return kind, [item if is_null(item) else cast(item, kind) for item in values]

    def _scalar_subquery(self, node: exp.Subquery) -> exp.Expr:
        query, types = self.subquery(plain_query(node), self.scope)
        if len(types) != 1:
            raise self.error(QueryTypeError, node, f"a sub-query used as a value has one column, not {len(types)}")
        return typed(exp.Subquery(this=query), types[0])

    # -- conditions -------------------------------------------------------------------------------------------------------------

    def condition(self, node: exp.Expr) -> exp.Expr:
        """Bind an expression that must be true or false."""
        bound = self._condition(node)
        if "span" not in bound.meta and (span := self.context.places.span(node)) is not None:
            bound.meta["span"] = span
        return bound

    def _condition(self, node: exp.Expr) -> exp.Expr:
        match node:
            case exp.And() | exp.Or():
                return balanced(type(node), [as_term(self.condition(term)) for term in terms_of(node)])
            case exp.Not():
                return typed(exp.Not(this=paren(self.condition(node.this))), BOOLEAN)
            case exp.Paren():
                return paren(self.condition(inner(node)))
            case exp.Between():
                return self._between(node)
            case exp.In():
                return self._in(node)
            case exp.Is():
                return self._is(node)
            case exp.Exists():
                query, _ = self.subquery(plain_query(node.this), self.scope)
                return typed(exp.Exists(this=query), BOOLEAN)
            case exp.Like() | exp.ILike() | exp.Escape():
                return self._like(node)
            case exp.RegexpLike():
                return self._regexp(node)
            case exp.Xor():
                sides = [paren(self.condition(side)) for side in (node.this, node.expression)]
                return typed(exp.NEQ(this=sides[0], expression=sides[1]), BOOLEAN)
            case _ if isinstance(node, _ORDERINGS):
                return self._comparison(type(node), node.this, node.expression, node)
        if self.language.has_sql_meaning and (found := self.predicate_call(self, node)) is not None:
            return found
        bound = self.value(node)
        kind = type_of(bound)
        if kind.is_boolean and isinstance(inner(bound), exp.Column) and not self.language.has_sql_meaning:
            raise self.error(QueryTypeError, node, "a column alone is not a condition", "compare it with 1 or 0")
        if not kind.is_boolean:
            is_geometric = self.predicate_call(self, node) is not None
            hint = "compare it with something"
            if is_geometric:
                called = inner(node).name.upper() if isinstance(inner(node), exp.Anonymous) else "CONTAINS"
                hint = f"compare it: {called}(..) = 1"
            raise self.error(QueryTypeError, node, f"a condition is expected here, not a value of type {to_adql(kind)}", hint)
        return bound

    def _comparison(self, kind: type[exp.Expr], left: exp.Expr, right: exp.Expr, node: exp.Expr) -> exp.Expr:
        if kind in (exp.EQ, exp.NEQ) and (found := self._geometric(kind, left, right)) is not None:
            return found
        first, second = self.comparable(self.value(left), self.value(right), node)
        return typed(kind(this=paren(first), expression=paren(second)), BOOLEAN)

    def _geometric(self, kind: type[exp.Expr], left: exp.Expr, right: exp.Expr) -> exp.Expr | None:
        """CONTAINS(..) = 1 and its kin, on either side, become the bare predicate or its negation."""
        for side, other in ((left, right), (right, left)):
            if not (isinstance(inner(other), exp.Literal) and str(inner(other).this) in ("0", "1")):
                continue
            predicate = self.predicate_call(self, side)
            if predicate is None:
                continue
            is_true = (str(inner(other).this) == "1") == (kind is exp.EQ)
            return predicate if is_true else typed(exp.Not(this=paren(predicate)), BOOLEAN)
        return None

    def comparable(self, left: exp.Expr, right: exp.Expr, node: exp.Expr) -> tuple[exp.Expr, exp.Expr]:
        """Bring two bound values to types that DuckDB compares as we mean it; raise `QueryTypeError` if there is no meaning."""
        left, right = self._adapted(left, right), self._adapted(right, left)
        first, second = type_of(left), type_of(right)
        if first.is_boolean and second.is_numeric:
            left, first = cast(left, INTEGER), INTEGER
        elif second.is_boolean and first.is_numeric:
            right, second = cast(right, INTEGER), INTEGER
        if not are_comparable(first, second):
            names = [to_adql(kind) for kind in (first, second)]
            hint = comparison_hint(first, second)
            raise self.error(QueryTypeError, node, f"{names[0]} cannot be compared with {names[1]}", hint)
        return left, right

    def _adapted(self, item: exp.Expr, other: exp.Expr) -> exp.Expr:
        """A text literal beside a time, a boolean or an identifier type stands for a value of that type."""
        text, kind = text_of(item), type_of(other)
        if text is None or kind.is_text or kind == NULL:
            return item
        span = span_of_bound(item)
        if is_temporal(kind):
            return typed(exp.Cast(this=text_literal(canonical_time(text, item), span), to=exp.DataType(this=exp.DType.TIMESTAMP)),
                         TIMESTAMP, span)  # fmt: skip
        if kind.is_boolean and text.lower() in ("true", "false", "t", "f"):
            self.context.extension("text compared with a boolean")
            return truth(text.lower().startswith("t"))
        if kind.name == "UUID":
            return cast(item, kind)
        return item

    def _between(self, node: exp.Between) -> exp.Expr:
        subject, low = self.comparable(self.value(node.this), self.value(node.args["low"]), node)
        subject, high = self.comparable(subject, self.value(node.args["high"]), node)
        subject, low, high = paren(subject), paren(low), paren(high)
        if not node.args.get("symmetric"):
            return typed(exp.Between(this=subject, low=low, high=high), BOOLEAN)
        one = typed(exp.Between(this=subject, low=low, high=high), BOOLEAN)
        two = typed(exp.Between(this=subject.copy(), low=high.copy(), high=low.copy()), BOOLEAN)
        return typed(exp.Or(this=one, expression=two), BOOLEAN)

    def _regexp(self, node: exp.RegexpLike) -> exp.Expr:
        subject, pattern = self.value(node.this), self.value(node.expression)
        for part in (subject, pattern):
            if not (type_of(part).is_text or is_null(part)):
                raise self._type_error(node, "REGEXP compares texts", part)
        return typed(call("regexp_matches", subject, pattern), BOOLEAN)

    def _in(self, node: exp.In) -> exp.Expr:
        if isinstance(node.this, exp.Tuple):
            return bind_row_in(self, node)
        subject = self.value(node.this)
        if (query := node.args.get("query")) is not None:
            bound, types = self.subquery(plain_query(query), self.scope)
            if len(types) != 1:
                raise self.error(QueryTypeError, node, f"the sub-query of IN has one column, not {len(types)}")
            kind = type_of(subject)
            if kind.is_boolean and types[0].is_numeric:
                subject = cast(subject, INTEGER)
            elif not are_comparable(kind, types[0]):
                raise self._type_error(node, f"IN compares {to_adql(kind)} with {to_adql(types[0])}")
            return typed(exp.In(this=paren(subject), query=exp.Subquery(this=bound)), BOOLEAN)
        if not node.expressions:
            raise self.error(QueryTypeError, node, "the list of IN is empty")
        if (values := integers_of(node.expressions[0])) is not None:
            # An integer is never changed to suit the other side, so the one that needs the most room speaks for all.
            subject, largest = self.comparable(subject, number(max(values, key=abs)), node.expressions[0])
            listed = typed(list_node(values), type_of(largest), self.context.places.span(node.expressions[0]))
            return typed(exp.In(this=paren(subject), expressions=[listed]), BOOLEAN)
        items = []
        for part in node.expressions:
            if (plain := plain_member(type_of(subject), part)) is not None:
                items.append(plain)
                continue
            first, item = self.comparable(subject, self.value(part), part)
            items.append(item)
            if type_of(first) != type_of(subject):
                subject = first
        return typed(exp.In(this=paren(subject), expressions=items), BOOLEAN)

    def _is(self, node: exp.Is) -> exp.Expr:
        subject = self.condition(node.this) if isinstance(node.expression, exp.Boolean) else self.value(node.this)
        other = truth(bool(node.expression.this)) if isinstance(node.expression, exp.Boolean) else typed(exp.Null(), NULL)
        return typed(exp.Is(this=paren(subject), expression=other), BOOLEAN)

    def _like(self, node: exp.Expr) -> exp.Expr:
        like = node.this if isinstance(node, exp.Escape) else node
        subject, pattern = self.value(like.this), self.value(like.expression)
        for part in (subject, pattern):
            if not (type_of(part).is_text or is_null(part)):
                error = self._type_error(node, "LIKE compares texts", part)
                error.hint = "CAST(x AS VARCHAR) makes a text of a value"
                raise error
        bound: exp.Expr = typed(type(like)(this=paren(subject), expression=paren(pattern)), BOOLEAN)
        if isinstance(node, exp.Escape):
            escape = text_of(self.value(node.expression))
            if escape is None or len(escape) != 1:
                raise self.error(QueryTypeError, node, "ESCAPE takes one character")
            bound = typed(exp.Escape(this=bound, expression=text_literal(escape)), BOOLEAN)
        return typed(exp.Not(this=paren(bound)), BOOLEAN) if like.args.get("negate") else bound

    def _type_error(self, node: exp.Expr, message: str, *operands: exp.Expr) -> QueryError:
        found = " and ".join(to_adql(type_of(operand)) if not is_null(operand) else "NULL" for operand in operands)
        return self.error(QueryTypeError, node, f"{message}, not {found}" if found else message)
