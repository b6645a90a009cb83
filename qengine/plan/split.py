"""Split a leaf-local block into the SELECT that every task runs and the SELECT that makes the answer from their rows.

Four ways, from cheapest to most general:

* **rows**: no aggregates and no windows, or such that one task knows all their rows. The leaf computes the output; DISTINCT, ORDER
  BY and LIMIT are applied in the leaf to what one task can know, and again in the final part.
* **partial**: aggregates that can be merged. The leaf groups; the final part merges COUNT and SUM by SUM, MIN and MAX by
  themselves, AVG by (sum, count), variances by (n, mean, M2) (Chan, Golub & LeVeque 1979).
* **counted**: aggregates without groups among which are COUNT(DISTINCT x), COUNT(DISTINCT y). The leaf groups by each argument
  apart (GROUPING SETS): it sends every value of x once, every value of y once, and one row with the partial aggregates, instead of
  every pair of values. The final part counts the values that are distinct in each column.
* **input**: everything else (windows, COUNT(DISTINCT), MEDIAN, ..). The leaf joins and filters and sends the columns that the rest
  needs; the rest runs as it is in the final part. If all aggregates ignore duplicates, the leaf sends distinct rows.

The final SELECT reads one relation, named by the caller; the output columns and their order are the block's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from sqlglot import exp

from qengine.catalog.types import BIGINT, DOUBLE, INTEGER, VARCHAR, SqlType
from qengine.errors import BugError
from qengine.plan import terms
from qengine.plan.nesting import aggregates_of, has_plain_groups, windows_of
from qengine.sql.trees import copy_tree, find, nodes_of

SUM_OF_INTEGERS = SqlType("DECIMAL(38,0)")
"""Type in which sums of integers travel: no sum of 64-bit integers over a catalogue can leave it."""

_VARIANCES = (exp.Stddev, exp.StddevSamp, exp.StddevPop, exp.Variance, exp.VariancePop)
_MERGEABLE = (exp.Count, exp.Sum, exp.Avg, exp.Min, exp.Max, *_VARIANCES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """The two halves of a block.

    `leaf` is ordinary SQL over the catalogue's tables whose output columns have the names and types `columns`; `final` reads
    them from the relation that `split` was told, and only passes them on if it `is_trivial`. `row_limit` is set when any that
    many leaf rows are enough; `kind` is for EXPLAIN.
    """

    kind: str
    leaf: exp.Select
    columns: tuple[tuple[str, SqlType], ...]
    final: exp.Select
    is_trivial: bool
    row_limit: int | None


def split(
    select: exp.Select, relation: str, *, is_complete: bool = False, is_unique: bool = False, may_count_apart: bool = True
) -> Split:
    """Split the block; the final part reads `relation`. `is_complete` says that the leaf knows whole groups and windows,
    `is_unique`
    that rows which DISTINCT makes one are in one leaf, `may_count_apart` that several distinct counts may make GROUPING SETS."""
    aggregates = aggregates_of(select)
    has_window = bool(windows_of(select)) or select.args.get("qualify") is not None
    grouped = bool(aggregates or select.args.get("group") or select.args.get("having"))
    if is_complete or (not grouped and not has_window):
        return _split_rows(select, relation, is_unique=is_unique)
    if not has_window and all(map(is_mergeable, aggregates)) and has_plain_groups(select):
        return _split_partial(select, relation)
    if may_count_apart and not has_window and not select.args.get("group") and (counted := _counted_apart(aggregates)):
        return _split_partial(select, relation, counted=counted)
    return _split_input(select, relation, aggregates=aggregates, has_window=has_window)


def storable(found: SqlType | None) -> SqlType:
    """Return the type in which values of `found` travel between fragments."""
    if found is None:
        raise BugError("an expression of the bound tree has no type")
    return {"NULL": INTEGER, "HUGEINT": SUM_OF_INTEGERS, "UUID": VARCHAR}.get(found.name, found)


def typed(node: exp.Expr, found: SqlType) -> exp.Expr:
    """Return `CAST(node AS type)`."""
    if isinstance(node, exp.Cast) and node.meta_get("sql_type") == found and node.to == terms.named_type(found.name):
        return copy_tree(node)
    cast = exp.Cast(this=copy_tree(node), to=terms.named_type(found.name))
    cast.meta["sql_type"] = found
    return cast


def limit_of(select: exp.Query) -> tuple[int | None, int]:
    """Return (LIMIT or None, OFFSET or 0)."""
    limit, offset = select.args.get("limit"), select.args.get("offset")
    count = terms.number(limit.expression) if limit is not None else None
    skip = terms.number(offset.expression) if offset is not None else 0
    return (None if count is None else int(count)), int(skip or 0)


def is_mergeable(node: exp.Expr) -> bool:
    """Say whether the aggregate can be computed from those of parts of its rows."""
    if not isinstance(node, _MERGEABLE) or isinstance(node.parent, (exp.Filter, exp.WithinGroup)):
        return False
    return not isinstance(node.this, exp.Distinct) and not isinstance(node.this, exp.Order) and len(node.expressions) == 0


def _is_duplicate_free(node: exp.Expr) -> bool:
    return isinstance(node, (exp.Min, exp.Max)) or isinstance(node.this, exp.Distinct)


def _without(select: exp.Select, *clauses: str) -> exp.Select:
    return copy_tree(select, without=clauses)


def _rewrite(node: exp.Expr, rule: Callable[[exp.Expr], exp.Expr | None]) -> exp.Expr:
    """Replace nodes from the top; where `rule` gives a replacement nothing below is looked at."""
    if (replacement := rule(node)) is not None:
        return replacement
    copied = copy_tree(node)
    _rewrite_below(copied, rule)
    return copied


def _rewrite_below(node: exp.Expr, rule: Callable[[exp.Expr], exp.Expr | None]) -> None:
    for child in list(node.iter_expressions()):
        if (replacement := rule(child)) is not None:
            child.replace(replacement)
        else:
            _rewrite_below(child, rule)


# -- rows ------------------------------------------------------------------------------------------------

_PLAIN = frozenset({"BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "FLOAT", "DOUBLE", "VARCHAR"})
"""Types that a file has in one way only."""


def _split_rows(select: exp.Select, relation: str, *, is_unique: bool) -> Split:
    columns = tuple((item.alias_or_name, storable(terms.sql_type(item))) for item in select.expressions)
    tables = {item.alias_or_name for item, _ in terms.from_items(select) if isinstance(item, exp.Table) and item.db}
    limit, offset = limit_of(select)
    distinct, order = None if is_unique else select.args.get("distinct"), select.args.get("order")
    leaf = _without(select, "expressions", "order", "limit", "offset")
    leaf.set("expressions", [
        terms.aliased(_as_stored(item.unalias(), found, tables), name)
        for item, (name, found) in zip(select.expressions, columns, strict=True)
    ])  # fmt: skip
    final = exp.Select(expressions=[terms.aliased(terms.quoted_column(relation, name), name) for name, _ in columns]).from_(
        terms.table_node(relation, relation), copy=False
    )
    extra: list[tuple[str, SqlType]] = []
    if order is not None:
        final.set("order", _order_rows(select, leaf, relation, extra))
    if distinct is not None:
        final.set("distinct", copy_tree(distinct))
    if limit is not None and (order is None or distinct is None):
        if order is not None:
            leaf.set("order", copy_tree(order))
        leaf.set("limit", exp.Limit(expression=exp.Literal.number(limit + offset)))
    for clause in ("limit", "offset"):
        if select.args.get(clause) is not None:
            final.set(clause, copy_tree(select.args[clause]))
    is_trivial = order is None and distinct is None and offset == 0
    return Split(
        kind="rows", leaf=leaf, columns=(*columns, *extra), final=final, is_trivial=is_trivial,
        row_limit=None if limit is None or order is not None or distinct is not None else limit + offset,
    )  # fmt: skip


def _as_stored(node: exp.Expr, found: SqlType, tables: Collection[str]) -> exp.Expr:
    """Return `typed`, but a plain column of one of the tables as it is: files have its type, and older ones are read in it."""
    if isinstance(node, exp.Column) and node.table in tables and found.name in _PLAIN and terms.sql_type(node) == found:
        return copy_tree(node)
    return typed(node, found)


def _order_rows(select: exp.Select, leaf: exp.Select, relation: str, extra: list[tuple[str, SqlType]]) -> exp.Order:
    """Order the final rows by columns that the leaf computes; expressions that are not output columns become extra ones."""
    outputs = {item.unalias(): item.alias_or_name for item in select.expressions}
    taken = {item.alias_or_name.lower() for item in select.expressions}
    items = []
    for number, item in enumerate(select.args["order"].expressions):
        name = outputs.get(item.this)
        if name is None:
            name = _free_name(f"order {number}", taken)
            found = storable(terms.sql_type(item.this))
            extra.append((name, found))
            leaf.append("expressions", terms.aliased(typed(item.this, found), name))
        ordered = copy_tree(item)
        ordered.set("this", terms.quoted_column(relation, name))
        items.append(ordered)
    return exp.Order(expressions=items)


def _free_name(wanted: str, taken: set[str]) -> str:
    while wanted in taken:
        wanted += "_"
    return wanted


# -- partial aggregates ----------------------------------------------------------------------------------


def counted_value(node: exp.Expr) -> exp.Expr | None:
    """Return x if the aggregate is COUNT(DISTINCT x)."""
    inner = node.this
    if not isinstance(node, exp.Count) or isinstance(node.parent, exp.Filter) or not isinstance(inner, exp.Distinct):
        return None
    return inner.expressions[0] if len(inner.expressions) == 1 else None


def _counted_apart(aggregates: list[exp.Expr]) -> list[exp.Expr]:
    """Return the values that are counted, each once, if sending them apart is less than sending rows; else nothing."""
    values: list[exp.Expr] = []
    others = []
    for node in aggregates:
        if (value := counted_value(node)) is None:
            if not is_mergeable(node):
                return []
            others.append(node)
        elif value not in values:
            values.append(value)
    if any(not find(v, exp.Column) or any(isinstance(n, exp.Query) or terms.is_random(n) for n in nodes_of(v)) for v in values):
        return []  # GROUP BY takes a number for the place of an output column
    if all(map(_is_duplicate_free, aggregates)) and len({c for node in aggregates for c in node.find_all(exp.Column)}) <= 1:
        return []  # distinct rows are these values
    return values


def _split_partial(select: exp.Select, relation: str, *, counted: Sequence[exp.Expr] = ()) -> Split:
    """Split into partial aggregates and their merging. The values `counted` are grouped apart, in rows of their own."""
    group = select.args.get("group")
    keys = list(group.expressions) if group is not None else []
    leaf_items: list[exp.Expr] = []
    columns: list[tuple[str, SqlType]] = []
    deviations: list[tuple[str, str]] = []

    def emit(name: str, node: exp.Expr, found: SqlType) -> exp.Column:
        columns.append((name, found))
        leaf_items.append(terms.aliased(typed(node, found), name))
        return terms.quoted_column(relation, name)

    def emit_once(name: str, node: exp.Expr, found: SqlType) -> exp.Column:
        """Emit a partial aggregate into the row of all rows only."""
        return (
            emit(name, exp.Case(ifs=[exp.If(this=copy_tree(is_of_all), true=copy_tree(node))]), found)
            if counted
            else emit(name, node, found)
        )

    key_columns = [emit(f"key {i}", key, storable(terms.sql_type(key))) for i, key in enumerate(keys)]
    values = {value: emit(f"value {i}", value, storable(terms.sql_type(value))) for i, value in enumerate(counted)}
    is_of_all = exp.EQ(
        this=exp.Grouping(expressions=[copy_tree(value) for value in counted]),
        expression=exp.Literal.number((1 << len(counted)) - 1),
    )
    merged: dict[exp.Expr, exp.Expr] = {}

    def rule(node: exp.Expr) -> exp.Expr | None:
        for key, place in zip(keys, key_columns, strict=True):
            if node == key:
                return copy_tree(place)
        if not node.meta.get("aggregate"):
            return None
        if counted and (value := counted_value(node)) is not None:
            count = copy_tree(node)
            count.set("this", exp.Distinct(expressions=[copy_tree(values[value])]))
            return count
        if node not in merged:
            merged[node] = _merge(node, f"part {len(merged)}", emit_once, relation, deviations)
        return copy_tree(merged[node])

    final = _without(select, "joins", "where", "from_", "group")
    for clause in ("expressions", "having", "order"):
        value = select.args.get(clause)
        if isinstance(value, list):
            final.set(clause, [_rewrite(item, rule) for item in value])
        elif value is not None:
            final.set(clause, _rewrite(value, rule))
    stray = next((c for c in final.find_all(exp.Column) if c.table != relation), None)
    if stray is not None:
        raise BugError(f"column {stray.sql()} is neither grouped nor aggregated", span=terms.span_of(stray))
    source: exp.Expr = terms.table_node(relation, relation)
    if deviations:
        source = _with_means(relation, [name for name, _ in columns], key_columns, deviations)
    final = final.from_(source, copy=False)
    if keys:
        final.set("group", exp.Group(expressions=[copy_tree(c) for c in key_columns]))
    leaf = _without(select, "expressions", "having", "order", "limit", "offset", "distinct")
    leaf.set("expressions", leaf_items or [terms.aliased(exp.Literal.number(1), "one")])
    if counted:
        sets = [exp.Tuple(expressions=[copy_tree(value)]) for value in counted]
        leaf.set("group", exp.Group(grouping_sets=[exp.GroupingSets(expressions=[*sets, *([exp.Tuple()] if merged else [])])]))
    return Split(
        kind="counted" if counted else "partial",
        leaf=leaf,
        columns=tuple(columns) or (("one", INTEGER),),
        final=final,
        is_trivial=False,
        row_limit=None,
    )


def _merge(
    node: exp.Expr,
    name: str,
    emit: Callable[[str, exp.Expr, SqlType], exp.Column],
    relation: str,
    deviations: list[tuple[str, str]],
) -> exp.Expr:
    """Return the final expression of one aggregate; its partial columns are emitted into the leaf."""
    if isinstance(node, exp.Count):
        total = exp.Sum(this=emit(name, node, BIGINT))
        return typed(exp.Coalesce(this=total, expressions=[exp.Literal.number(0)]), BIGINT)
    argument = terms.sql_type(node.this)
    if isinstance(node, (exp.Min, exp.Max)):
        return type(node)(this=emit(name, node, storable(argument)))
    if isinstance(node, exp.Sum):
        return exp.Sum(this=emit(name, node, _sum_type(argument)))
    if isinstance(node, exp.Avg):
        total = exp.Sum(this=emit(name, exp.Sum(this=copy_tree(node.this)), _sum_type(argument)))
        count = exp.Sum(this=emit(f"{name} n", exp.Count(this=copy_tree(node.this)), BIGINT))
        divisor = exp.Nullif(this=typed(count, DOUBLE), expression=exp.Literal.number(0))
        return exp.Div(this=typed(total, DOUBLE), expression=divisor)
    value = typed(node.this, DOUBLE)
    n = emit(f"{name} n", exp.Count(this=copy_tree(value)), DOUBLE)
    mean = emit(f"{name} mean", exp.Avg(this=copy_tree(value)), DOUBLE)
    squares = exp.Mul(this=exp.VariancePop(this=copy_tree(value)), expression=exp.Count(this=copy_tree(value)))
    m2 = emit(f"{name} m2", squares, DOUBLE)
    deviations.append((n.name, mean.name))
    overall = terms.quoted_column(relation, f"{mean.name} overall")
    offset = exp.Paren(this=exp.Sub(this=copy_tree(mean), expression=overall))
    between = exp.Mul(this=exp.Mul(this=copy_tree(n), expression=offset), expression=copy_tree(offset))
    total = exp.Sum(this=exp.Add(this=copy_tree(m2), expression=between))
    count = exp.Sum(this=copy_tree(n))
    is_population = isinstance(node, (exp.StddevPop, exp.VariancePop))
    divisor_n: exp.Expr = count if is_population else exp.Paren(this=exp.Sub(this=count, expression=exp.Literal.number(1)))
    variance = exp.Div(this=total, expression=exp.Nullif(this=divisor_n, expression=exp.Literal.number(0)))
    known = exp.GT(this=copy_tree(count), expression=exp.Literal.number(0 if is_population else 1))
    is_root = isinstance(node, (exp.Stddev, exp.StddevSamp, exp.StddevPop))
    return exp.Case(ifs=[exp.If(this=known, true=exp.Sqrt(this=variance) if is_root else variance)])


def _sum_type(argument: SqlType | None) -> SqlType:
    if argument is None:
        raise BugError("an argument of an aggregate has no type")
    if argument.is_integer or argument.is_boolean:
        return SUM_OF_INTEGERS
    if argument.name.startswith("DECIMAL"):
        return SqlType(f"DECIMAL(38,{argument.name.rstrip(')').split(',')[-1].strip()})")
    return DOUBLE


def _with_means(relation: str, names: list[str], keys: list[exp.Column], deviations: list[tuple[str, str]]) -> exp.Expr:
    """Add to the partial rows the mean of the whole group, which the M2 terms are shifted to."""
    items: list[exp.Expr] = [terms.quoted_column(relation, name) for name in names]
    for n, mean in deviations:
        weighted = exp.Mul(this=terms.quoted_column(relation, n), expression=terms.quoted_column(relation, mean))
        sums = [
            exp.Window(this=exp.Sum(this=term), partition_by=[copy_tree(k) for k in keys])
            for term in (weighted, terms.quoted_column(relation, n))
        ]
        overall = exp.Div(this=sums[0], expression=exp.Nullif(this=sums[1], expression=exp.Literal.number(0)))
        items.append(terms.aliased(overall, f"{mean} overall"))
    inner = exp.Select(expressions=items).from_(terms.table_node(relation, relation), copy=False)
    return inner.subquery(exp.to_identifier(relation, quoted=True), copy=False)


# -- input -----------------------------------------------------------------------------------------------


def _split_input(select: exp.Select, relation: str, *, aggregates: list[exp.Expr], has_window: bool) -> Split:
    final = _without(select, "joins", "where", "from_")
    places: dict[tuple[str, str], str] = {}
    columns: list[tuple[str, SqlType]] = []
    items: list[exp.Expr] = []
    for node in list(final.find_all(exp.Column)):
        place = (node.table, node.name)
        if place not in places:
            places[place] = f"column {len(places)}"
            found = storable(terms.sql_type(node))
            columns.append((places[place], found))
            items.append(terms.aliased(typed(node, found), places[place]))
        replacement = terms.quoted_column(relation, places[place])
        replacement.meta.update(node.meta)
        node.replace(replacement)
    final = final.from_(terms.table_node(relation, relation), copy=False)
    leaf = _without(select, "expressions", "having", "order", "limit", "offset", "distinct", "group", "qualify", "windows")
    leaf.set("expressions", items or [terms.aliased(exp.Literal.number(1), "one")])
    if not has_window and aggregates and all(map(_is_duplicate_free, aggregates)):
        leaf.set("distinct", exp.Distinct())
    return Split(
        kind="input", leaf=leaf, columns=tuple(columns) or (("one", INTEGER),), final=final, is_trivial=False, row_limit=None
    )
