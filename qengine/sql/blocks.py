"""Binding of queries: SELECT blocks, set operations, CTEs, and the clauses in the order in which they see each other."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sqlglot import exp

from qengine.catalog.output import OutputColumn
from qengine.catalog.types import BIGINT, BOOLEAN, VARCHAR, SqlType, to_adql
from qengine.errors import QueryTypeError, UnknownNameError, UnsupportedQueryError
from qengine.sql.calls import bind_call, bind_window, ordered
from qengine.sql.coercion import common_type
from qengine.sql.expressions import Clause, Expressions
from qengine.sql.geometry import predicate
from qengine.sql.grouping import Groups, bind_groups
from qengine.sql.nodes import cast, column, data_type, inner, is_null, number, number_of, output_column, quoted, type_of, typed
from qengine.sql.relations import Relations, rename
from qengine.sql.scopes import Context, Cte, Scope, matches
from qengine.sql.views import Computed

_MODIFIERS = ("order", "limit", "offset")


@dataclass(frozen=True, slots=True)
class Item:
    """One bound select item: its name to the outside, its expression, and the node of the statement that it comes from."""

    name: str
    node: exp.Expr
    origin: exp.Expr


class Queries:
    """Binds the queries of one statement."""

    def __init__(self, context: Context) -> None:
        self.context = context

    def bind(self, tree: exp.Query, scope: Scope) -> tuple[exp.Query, tuple[OutputColumn, ...]]:
        """Bind a query that stands within `scope` and return it with its output columns."""
        if isinstance(tree, exp.Subquery):
            return self._parenthesised(tree, scope)
        if isinstance(tree, exp.Select):
            return self._select(tree, scope)
        if isinstance(tree, exp.SetOperation):
            return self._set_operation(tree, scope)
        raise self.context.error(UnsupportedQueryError, tree, f"{type(tree).__name__} is not supported")

    def expressions(self, scope: Scope, clause: Clause) -> Expressions:
        return Expressions(scope, clause, self._inner, bind_call, bind_window, predicate)

    def _inner(self, tree: exp.Query, scope: Scope) -> tuple[exp.Query, tuple[SqlType, ...]]:
        query, columns = self.bind(tree, scope)
        return query, tuple(c.type for c in columns)

    # -- WITH -------------------------------------------------------------------------------------------------------------------

    def _with(self, tree: exp.Query, scope: Scope) -> exp.With | None:
        found = tree.args.get("with_")
        if found is None:
            return None
        if tree.parent is not None:
            self.context.extension("WITH inside a sub-query")
        ctes = []
        for cte in found.expressions:
            name = cte.args["alias"].this
            if any(matches(name, known) for known in scope.ctes):
                raise self.context.error(UnknownNameError, cte, f"{name.name} is defined twice")
            query, columns = self.bind(cte.this, scope)
            if names := cte.args["alias"].columns:
                if len(names) != len(columns):
                    raise self.context.error(QueryTypeError, cte, f"{len(names)} names for {len(columns)} columns")
                self.context.extension("column names after WITH")
                columns = rename(query, columns, [n.name for n in names])
            unique = self.context.new_cte(name.name)
            scope.ctes[name.name] = Cte(unique, columns)
            ctes.append(exp.CTE(this=query, alias=exp.TableAlias(this=quoted(unique))))
        return exp.With(expressions=ctes)

    # -- parentheses and set operations -------------------------------------------------------------------------------------------

    def _parenthesised(self, tree: exp.Subquery, scope: Scope) -> tuple[exp.Query, tuple[OutputColumn, ...]]:
        own = Scope(self.context, parent=scope)
        with_ = self._with(tree, own)
        query, columns = self.bind(tree.this, own)
        scope.is_correlated = scope.is_correlated or own.is_correlated
        if any(tree.args.get(key) for key in _MODIFIERS):
            query = self._modified(tree, query, columns)
        if with_ is not None:
            _put_with(query, with_)
        return query, columns

    def _set_operation(self, tree: exp.SetOperation, scope: Scope) -> tuple[exp.Query, tuple[OutputColumn, ...]]:
        own = Scope(self.context, parent=scope)
        with_ = self._with(tree, own)
        # the left spine is walked without recursion: a chain of UNIONs may be long
        spine: list[exp.SetOperation] = [tree]
        while isinstance(spine[-1].this, exp.SetOperation) and not any(spine[-1].this.args.get(key) for key in _MODIFIERS):
            spine.append(spine[-1].this)
        query, columns = self.bind(spine[-1].this, own)
        for operation in reversed(spine):
            right, others = self.bind(operation.expression, own)
            query, columns = self._combine(operation, (query, columns), (right, others))
        scope.is_correlated = scope.is_correlated or own.is_correlated
        if any(tree.args.get(key) for key in _MODIFIERS):
            query = self._modified(tree, query, columns)
        if with_ is not None:
            _put_with(query, with_)
        return query, columns

    def _combine(
        self,
        node: exp.SetOperation,
        left: tuple[exp.Query, tuple[OutputColumn, ...]],
        right: tuple[exp.Query, tuple[OutputColumn, ...]],
    ) -> tuple[exp.Query, tuple[OutputColumn, ...]]:
        name = type(node).__name__.upper()
        if len(left[1]) != len(right[1]):
            message = f"the two sides of {name} have {len(left[1])} and {len(right[1])} columns"
            raise self.context.error(QueryTypeError, node, message)
        kinds = []
        for first, second in zip(left[1], right[1], strict=True):
            kind = common_type(first.type, second.type)
            if kind is None:
                message = (
                    f"column {first.name} of {name} is {to_adql(first.type)} on one side and {to_adql(second.type)} on the other"
                )
                raise self.context.error(QueryTypeError, node, message)
            kinds.append(kind)
        columns = tuple(replace(c, type=kind) for c, kind in zip(left[1], kinds, strict=True))
        sides = [self._as_types(query, own, kinds) for query, own in (left, right)]
        bound = type(node)(this=_operand(sides[0]), expression=_operand(sides[1]), distinct=bool(node.args.get("distinct")))
        if (span := self.context.places.span(node)) is not None:
            bound.meta["span"] = span
        return bound, columns

    def _as_types(self, query: exp.Query, columns: tuple[OutputColumn, ...], kinds: list[SqlType]) -> exp.Query:
        """Cast the columns of an operand to the common types, in its select list where that is safe."""
        if all(c.type.name == kind.name for c, kind in zip(columns, kinds, strict=True)):
            return query
        if isinstance(query, exp.Select) and not query.args.get("distinct") and not query.args.get("order"):
            for item, kind in zip(query.expressions, kinds, strict=True):
                item.set("this", cast(item.this, kind))
            return query
        alias = self.context.new_alias("operand")
        items = []
        for c, kind in zip(columns, kinds, strict=True):
            items.append(_aliased(cast(typed(column(alias, c.name), c.type), kind), c.name))
        return exp.Select(expressions=items, from_=exp.From(this=_derived(query, alias)))

    def _modified(self, tree: exp.Query, query: exp.Query, columns: tuple[OutputColumn, ...]) -> exp.Query:
        """ORDER BY, LIMIT and OFFSET over a whole query go on a SELECT around it: its columns are then ordinary columns."""
        alias = self.context.new_alias("result")
        items = [Item(c.name, typed(column(alias, c.name), c.type), tree) for c in columns]
        outer = exp.Select(
            expressions=[_aliased(item.node.copy(), item.name) for item in items], from_=exp.From(this=_derived(query, alias))
        )
        scope = Scope(self.context, outputs=[(item.name, item.node) for item in items])
        binder = self.expressions(scope, Clause(name="ORDER BY"))
        if (order := tree.args.get("order")) is not None:
            found = [ordered(self._order_term(term, items, binder), term) for term in order.expressions]
            outer.set("order", exp.Order(expressions=found))
        self._limits(tree, outer)
        return outer

    # -- SELECT -----------------------------------------------------------------------------------------------------------------

    def _select(self, tree: exp.Select, parent: Scope) -> tuple[exp.Query, tuple[OutputColumn, ...]]:
        scope = Scope(self.context, parent=parent)
        with_ = self._with(tree, scope)
        computed = Computed(self.context, Queries)
        relations = Relations(scope, self.bind, lambda inner_scope: self.expressions(inner_scope, Clause(name="ON")), computed)
        first = relations.bind(tree)
        bound = exp.Select(from_=exp.From(this=first))
        if relations.joins:
            bound.set("joins", relations.joins)
        select = Clause(name="SELECT", takes_aggregates=True, takes_windows=True)
        items = self._named([item for node in tree.expressions for item in self._items(node, scope, select)])
        is_loose = self.context.language.has_extensions
        outputs = [(item.name, item.node) for item in items]

        if (where := tree.args.get("where")) is not None:
            scope.outputs = outputs if self.context.language.has_sql_meaning else []
            scope.later_outputs = [item.name for item in items]
            condition = self.expressions(scope, Clause(name="WHERE")).condition(where.this)
            bound.set("where", exp.Where(this=relations.filtered(condition)))
        elif (kept := relations.filtered(None)) is not None:
            bound.set("where", exp.Where(this=kept))
        scope.outputs = outputs if is_loose else []
        found = self._groups(tree, items, scope)
        groups = None if found is None else list(found.keys)
        if found is not None:
            bound.set("group", found.node())
            if found.sets:
                items = [_as_key(item, found.keys) for item in items]
                outputs = [(item.name, item.node) for item in items]
        having = Clause(name="HAVING", takes_aggregates=True)
        if (node := tree.args.get("having")) is not None:
            bound.set("having", exp.Having(this=self.expressions(scope, having).condition(node.this)))
        if scope.uses_outputs:
            names = ", ".join(dict.fromkeys(scope.uses_outputs))
            self.context.extension(f"an output name in GROUP BY or HAVING ({names})")
            scope.uses_outputs.clear()
        qualify = Clause(name="QUALIFY", takes_aggregates=True, takes_windows=True)
        if (node := tree.args.get("qualify")) is not None:
            bound.set("qualify", exp.Qualify(this=self.expressions(scope, qualify).condition(node.this)))
        scope.outputs = outputs
        last = Clause(name="ORDER BY", takes_aggregates=True, takes_windows=True)
        order = self._order(tree, items, self.expressions(scope, last))
        is_aggregated = groups is not None or node_count(select, having, qualify, last) > 0 or tree.args.get("having") is not None
        if tree.args.get("distinct"):
            self._distinct(tree, bound, items, order, scope)
        if is_aggregated:
            self._check_grouping(bound, items, order, groups or [], scope)
        bound.set("expressions", [_aliased(item.node, item.name) for item in items])
        if order:
            bound.set("order", exp.Order(expressions=order))
        self._limits(tree, bound)
        if with_ is not None:
            _put_with(bound, with_)
        if scope.is_correlated:
            parent.is_correlated = parent.is_correlated or self._reaches_beyond(bound, parent)
        return bound, tuple(output_column(item.name, item.node) for item in items)

    @staticmethod
    def _reaches_beyond(bound: exp.Select, parent: Scope) -> bool:
        """Whether a correlated reference goes further out than `parent`'s own tables."""
        own = {item.alias_or_name for item in bound.find_all(exp.Table, exp.Subquery)} | parent.aliases()
        return any(c.table and c.table not in own for c in bound.find_all(exp.Column))

    def _items(self, node: exp.Expr, scope: Scope, clause: Clause) -> list[Item]:
        if isinstance(node, exp.Star):
            return [Item(name, found, node) for name, found in scope.star()]
        if isinstance(node, exp.Column) and isinstance(node.this, exp.Star):
            return [Item(name, found, node) for name, found in scope.star_of(node)]
        binder = self.expressions(scope, clause)
        origin = node.this if isinstance(node, exp.Alias) else node
        bound = binder.value(origin)
        if is_null(bound):
            bound = cast(bound, VARCHAR)
        name = node.alias if isinstance(node, exp.Alias) else _default_name(origin, bound)
        return [Item(name, bound, node)]

    def _named(self, items: list[Item]) -> list[Item]:
        """Number unnamed items, and make equal names unique."""
        taken: set[str] = set()
        named, doubled = [], []
        for place, item in enumerate(items, 1):
            name = item.name or f"col_{place}"
            unique, count = name, 1
            while unique.lower() in taken:
                count += 1
                unique = f"{name}_{count}"
            taken.add(unique.lower())
            is_generated = not isinstance(item.origin, (exp.Alias, exp.Column, exp.Star))
            if unique != name and not is_generated:
                doubled.append(unique)
            named.append(Item(unique, item.node, item.origin))
        if doubled:
            shown = ", ".join(doubled[:5]) + (", .." if len(doubled) > 5 else "")
            self.context.warn(f"columns of equal names were made unique: {shown}")
        return named

    # -- GROUP BY, ORDER BY, limits -----------------------------------------------------------------------------------------------

    def _groups(self, tree: exp.Select, items: list[Item], scope: Scope) -> Groups | None:
        group = tree.args.get("group")
        if group is None:
            return None
        binder = self.expressions(scope, Clause(name="GROUP BY"))

        def key(node: exp.Expr) -> exp.Expr:
            ordinal = number_of(node) if isinstance(node, exp.Literal) else None
            if ordinal is not None and self.context.language.has_sql_meaning:
                bound = self._by_ordinal(ordinal, items, node).copy()
            else:
                bound = binder.value(inner(node))
            if any(part.meta.get("aggregate") for part in bound.walk()) or any(bound.find_all(exp.Window)):
                raise self.context.error(QueryTypeError, node, "GROUP BY cannot use an aggregate or a window function")
            return _not_an_ordinal(bound)

        return bind_groups(self.context, group, key)

    def _by_ordinal(self, ordinal: int | float, items: list[Item], node: exp.Expr) -> exp.Expr:
        if not isinstance(ordinal, int) or not 1 <= ordinal <= len(items):
            raise self.context.error(QueryTypeError, node, f"there is no column {ordinal}: the query has {len(items)}")
        return items[ordinal - 1].node

    def _order(self, tree: exp.Select, items: list[Item], binder: Expressions) -> list[exp.Expr]:
        order = tree.args.get("order")
        if order is None:
            return []
        return [ordered(self._order_term(term, items, binder), term) for term in order.expressions]

    def _order_term(self, term: exp.Ordered, items: list[Item], binder: Expressions) -> exp.Expr:
        node = inner(term.this)
        if isinstance(node, exp.Literal) and not node.is_string:
            return _not_an_ordinal(self._by_ordinal(number_of(node) or 0, items, node).copy())
        if isinstance(node, exp.Column) and not node.table and not isinstance(node.this, exp.Star):
            named = [item for item in items if matches(node.this, item.name)]
            if named:
                return _not_an_ordinal(named[0].node.copy())
        bound = binder.value(node)
        if type_of(bound).is_geometry:
            raise self.context.error(QueryTypeError, node, "a geometry has no order")
        return _not_an_ordinal(bound)

    def _limits(self, tree: exp.Query, bound: exp.Select) -> None:
        for key, kind in (("limit", exp.Limit), ("offset", exp.Offset)):
            node = tree.args.get(key)
            if node is None:
                continue
            value = number_of(node.expression)
            if not isinstance(value, int) or value >= 2**63:
                raise self.context.error(QueryTypeError, node, f"{key.upper()} is an unsigned integer")
            bound.set(key, kind(expression=typed(exp.Literal.number(value), BIGINT)))

    def _distinct(self, tree: exp.Select, bound: exp.Select, items: list[Item], order: list[exp.Expr], scope: Scope) -> None:
        on = tree.args["distinct"].args.get("on")
        if on is None:
            bound.set("distinct", exp.Distinct())
            self._check_distinct_order(tree, items, order)
            return
        # the first row of each group of equal keys, in the order of the statement
        if tree.args.get("qualify") is not None:
            raise self.context.error(UnsupportedQueryError, on, "DISTINCT ON with QUALIFY is not supported", "use a sub-query")
        scope.outputs = [(item.name, item.node) for item in items]
        binder = self.expressions(scope, Clause(name="DISTINCT ON", takes_aggregates=True))
        keys = [binder.value(inner(part)) for part in (on.expressions if isinstance(on, exp.Tuple) else [on])]
        window = exp.Window(
            this=typed(exp.Anonymous(this="row_number", expressions=[]), BIGINT), partition_by=keys, over="OVER",
            order=exp.Order(expressions=[term.copy() for term in order]) if order else None,
        )  # fmt: skip
        first = typed(exp.EQ(this=typed(window, BIGINT), expression=number(1)), BOOLEAN)
        bound.set("qualify", exp.Qualify(this=first))

    def _check_distinct_order(self, tree: exp.Select, items: list[Item], order: list[exp.Expr]) -> None:
        known = [item.node for item in items]
        for place, term in enumerate(order):
            if not any(term.this == node or term.this == _not_an_ordinal(node) for node in known):
                at = tree.args["order"].expressions[place]
                raise self.context.error(QueryTypeError, at, "ORDER BY of SELECT DISTINCT takes columns of the result")

    # -- grouping ---------------------------------------------------------------------------------------------------------------

    def _check_grouping(
        self, bound: exp.Select, items: list[Item], order: list[exp.Expr], groups: list[exp.Expr], scope: Scope
    ) -> None:
        """Every column outside aggregates must be a group expression, or part of one."""
        keys, own = list(groups), scope.aliases()
        for item in items:
            self._check_grouped(item.node, keys, own, item.origin)
        for key in ("having", "qualify"):
            if (clause := bound.args.get(key)) is not None:
                self._check_grouped(clause.this, keys, own, None)
        for term in order:
            self._check_grouped(term.this, keys, own, None)

    def _check_grouped(self, node: exp.Expr, keys: list[exp.Expr], own: frozenset[str], origin: exp.Expr | None) -> None:
        stack = [node]
        while stack:
            found = stack.pop()
            if found.meta.get("aggregate") or any(found == key for key in keys):
                continue
            if isinstance(found, exp.Anonymous) and found.this == "grouping":
                if all(any(part == key for key in keys) for part in found.expressions):
                    continue
                message = f"GROUPING takes keys of GROUP BY, {found.expressions[0].name or 'this'} is none"
                raise QueryTypeError(message, span=found.meta.get("span"), hint="it says which keys a row is not grouped by")
            if isinstance(found, exp.Column) and found.table in own:
                message = f"column {found.name} is neither grouped nor inside an aggregate"
                span = found.meta.get("span") or (self.context.places.span(origin) if origin is not None else None)
                raise QueryTypeError(message, span=span, hint=f"add it to GROUP BY, or write MIN({found.name})")
            stack += list(found.iter_expressions())


def node_count(*clauses: Clause) -> int:
    """The number of aggregates found in some clauses."""
    return sum(clause.aggregates for clause in clauses)


def _default_name(origin: exp.Expr, bound: exp.Expr) -> str:
    """A column keeps its declared spelling, a call gives its function's name, anything else is numbered."""
    node = inner(origin)
    if isinstance(node, exp.Column):
        return bound.name if isinstance(bound, exp.Column) else str(bound.meta.get("declared", node.name))
    if isinstance(node, exp.Window):
        node = node.this
    if isinstance(node, exp.Filter):
        node = node.this
    return node.name.lower() if isinstance(node, exp.Anonymous) else ""


def _as_key(item: Item, keys: tuple[exp.Expr, ...]) -> Item:
    """Spell a constant item as the key of grouping sets that it is, which is NULL in the sets without it."""
    spelled = _not_an_ordinal(item.node)
    is_key = spelled is not item.node and any(spelled == key for key in keys)
    return Item(item.name, spelled, item.origin) if is_key else item


def _not_an_ordinal(node: exp.Expr) -> exp.Expr:
    """A constant key would be read as an ordinal by DuckDB; as a CAST it is a value."""
    value = number_of(node)
    if value is None and not (isinstance(node, exp.Literal) and node.is_string):
        return node
    kind = type_of(node)
    constant = node if value is None else number(value)
    # an explicit CAST, although the type is the same

    return typed(exp.Cast(this=constant, to=data_type(kind)), kind)


def _aliased(node: exp.Expr, name: str) -> exp.Alias:
    return typed(exp.Alias(this=node, alias=quoted(name)), type_of(node), node.meta.get("span"))


def _derived(query: exp.Query, alias: str) -> exp.Subquery:
    return exp.Subquery(this=query, alias=exp.TableAlias(this=quoted(alias)))


def _operand(query: exp.Query) -> exp.Query:
    """An operand of a set operation, in parentheses where it has clauses of its own."""
    needs = isinstance(query, exp.SetOperation) or any(query.args.get(key) for key in (*_MODIFIERS, "with_"))
    return exp.Subquery(this=query) if needs else query


def _put_with(query: exp.Query, with_: exp.With) -> None:
    """Add CTEs to a bound query, before those that it has."""
    own = query.args.get("with_")
    query.set("with_", exp.With(expressions=[*with_.expressions, *(own.expressions if own else [])]))
