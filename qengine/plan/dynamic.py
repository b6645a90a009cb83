"""What the rows of a small table that is already here say about a large one: dynamic filters.

The rows of a step, an upload or a table of the coordinator are known when the rest of the statement is planned. A term that ties
such a table to a stored relation then restricts the stored one:

* equality with its locality key, or `key IN (SELECT ..)`: the values are keys, whose cells are looked up;
* equality of another column: the smallest and the largest value are a range;
* a distance between the positions: only cells near the known positions matter.

The facts over-cover, and the terms stay in the statement. They hold for rows that fulfil the term: all rows of the block for
terms of WHERE and inner joins, the matching rows of `x` for the ON of `LEFT JOIN x`.

`fold` puts results of steps that are a handful of values into the statement itself: scalars and EXISTS as constants, short lists
for IN.
"""

from __future__ import annotations

import datetime
import decimal
import math
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from sqlglot import exp

from qengine.catalog.model import Catalog, Int64Array, Table, TableKind, TableSnapshot
from qengine.catalog.types import SqlType
from qengine.errors import ExecutionError
from qengine.plan import terms
from qengine.plan.logical import STEPS, UNKNOWN, Block, KeyFact, PlaceFact, RangeFact, SkyEdge
from qengine.sky.cells import ORDER, RangeSet
from qengine.sky.coverage import ring
from qengine.sky.healpix import cells_of

MAX_KEYS = 500_000
"""Keys that are looked up for one fact; more would take longer than they save."""

MAX_LIST = 3000
"""Values of an IN list that stand in the statement; longer ones stay a table."""

_FINEST = 12
"""Finest order of the tiles that known positions are rounded to: 50 arcsec, small beside any row group."""

_TILES = 5000
"""Positions are rounded to coarser tiles until there are no more than these: their ring costs 10 microseconds each."""

Fact = KeyFact | RangeFact | PlaceFact


def known_facts(block: Block, alias: str, catalog: Catalog, *, scope: str) -> Iterator[Fact]:
    """Yield what relations whose rows are known say about `alias` through terms of this scope."""
    relation = block.relations.get(alias)
    if relation is None or relation.table is None or relation.table.inline is not None:
        return
    table = relation.table.table
    for conjunct in block.conjuncts:
        if conjunct.scope == scope and (found := _values(conjunct.node, alias, block, catalog)) is not None:
            column, values = found
            yield from _facts(alias, table, column, values)
    for edge in block.sky_edges:
        if edge.scope == scope and (place := _places(edge, alias, table, block)) is not None:
            yield place


def _values(node: exp.Expr, alias: str, block: Block, catalog: Catalog) -> tuple[str, pa.ChunkedArray] | None:
    """Return (column of `alias`, the values that it must be one of)."""
    node = terms.bare(node)
    if isinstance(node, exp.EQ):
        for mine, other in ((node.this, node.expression), (node.expression, node.this)):
            own, theirs = terms.plain_column(mine), terms.plain_column(other)
            if own is None or theirs is None or own[0] != alias or theirs[0] not in block.relations:
                continue
            rows = _known(block.relations[theirs[0]].table)
            if rows is not None and theirs[1] in rows.column_names:
                return own[1], rows.column(theirs[1])
    if isinstance(node, exp.In) and node.args.get("query") is not None:
        own = terms.plain_column(node.this)
        rows = _known(_read_by(node.args["query"], catalog))
        if own is not None and own[0] == alias and rows is not None and rows.num_columns == 1:
            return own[1], rows.column(0)
    return None


def _known(table: TableSnapshot | None) -> pa.Table | None:
    return table.inline if table is not None and table.number != UNKNOWN else None


def _facts(alias: str, table: Table, name: str, values: pa.ChunkedArray) -> Iterator[Fact]:
    column = table.column(name)
    if column is None:
        return
    values = values.drop_null()
    is_same_kind = (pa.types.is_integer(values.type) and column.type.is_integer) or (_is_text(values.type) and column.type.is_text)
    if is_same_kind and table.locality_key == name and len(values) <= MAX_KEYS:
        yield KeyFact(alias=alias, family=table.family, values=tuple(pc.unique(values).to_pylist()))
    elif column.type.is_numeric and _is_number(values.type):
        if len(values) == 0:
            yield RangeFact(alias=alias, column=name, low=math.inf, high=-math.inf)
            return
        extremes = pc.min_max(values)
        low, high = float(extremes["min"].as_py()), float(extremes["max"].as_py())
        if not (math.isnan(low) or math.isnan(high)):
            # Comparisons may round either side, large integers and FLOATs among them.
            slack = 1e-6 * max(abs(low), abs(high), 1e-300)
            yield RangeFact(alias=alias, column=name, low=low - slack, high=high + slack)


def _places(edge: SkyEdge, alias: str, table: Table, block: Block) -> PlaceFact | None:
    if alias not in (edge.left, edge.right):
        return None
    other = edge.right if alias == edge.left else edge.left
    is_place = table.kind is TableKind.DIRECTOR and edge.columns[alias] == (table.ra, table.dec) and bool(table.line_column)
    rows = _known(block.relations[other].table) if other in block.relations else None
    if not is_place or rows is None or not set(edge.columns[other]) <= set(rows.column_names):
        return None
    ra, dec = (rows.column(name).cast(pa.float64()).to_numpy() for name in edge.columns[other])
    is_known = np.isfinite(ra) & np.isfinite(dec)
    if (np.abs(dec[is_known]) > 90).any():
        return None
    return PlaceFact(alias=alias, cells=near(cells_of(ra[is_known] % 360.0, dec[is_known]), edge.radius_deg))


def near(cells: Int64Array, radius_deg: float) -> RangeSet:
    """Return ranges that hold everything within the radius of the cells, at the fineness that pruning can use."""
    order = _FINEST
    # numpy's unique hashes integers, which takes ten times as long as sorting them.
    tiles = _distinct(np.sort(cells >> 2 * (ORDER - order)))
    while len(tiles) > _TILES:
        order -= 1
        tiles = _distinct(tiles >> 2)
    shift = 2 * (ORDER - order)
    home = RangeSet.from_ranges(tiles << shift, (tiles + 1) << shift)
    return home | ring(home, radius_deg)


def _distinct(ordered: Int64Array) -> Int64Array:
    return ordered[np.r_[True, ordered[1:] > ordered[:-1]]] if len(ordered) else ordered


def _is_number(found: pa.DataType) -> bool:
    return bool(pa.types.is_integer(found) or pa.types.is_floating(found) or pa.types.is_decimal(found))


def _is_text(found: pa.DataType) -> bool:
    return bool(pa.types.is_string(found) or pa.types.is_large_string(found))


# -- constants -----------------------------------------------------------------------------------------------------------


def fold(tree: exp.Query, catalog: Catalog) -> exp.Query:
    """Replace sub-queries that read nothing but the known rows of a step by constants.

    Raise `ExecutionError` where a scalar sub-query has more than one row.
    """
    if not any(t.db == STEPS for t in tree.find_all(exp.Table)):
        return tree
    tree = tree.copy()
    for holder in list(tree.find_all(exp.Exists, exp.In, exp.Subquery)):
        if isinstance(holder.parent, (exp.From, exp.Join, exp.In)) and isinstance(holder, exp.Subquery):
            continue
        source = holder.args.get("query") if isinstance(holder, exp.In) else holder.this
        rows = _known(_read_by(source, catalog)) if source is not None else None
        if rows is None:
            continue
        replacement: exp.Expr | None
        if isinstance(holder, exp.Exists):
            replacement = exp.Boolean(this=rows.num_rows > 0)
        elif isinstance(holder, exp.In):
            replacement = _list(holder, rows.column(0))
        else:
            assert isinstance(holder, exp.Subquery)
            replacement = _scalar(holder, rows)
        if replacement is not None:
            replacement.meta.update(holder.meta)
            holder.replace(replacement)
    return tree


def _read_by(source: exp.Expr, catalog: Catalog) -> TableSnapshot | None:
    """Return the step's table if the query is `SELECT <its columns> FROM <it>`."""
    while isinstance(source, exp.Subquery):
        source = source.this
    if not isinstance(source, exp.Select) or any(v for k, v in source.args.items() if k not in ("expressions", "from_", "kind")):
        return None
    from_ = source.args.get("from_")
    table = from_.this if from_ is not None else None
    if not isinstance(table, exp.Table) or table.db != STEPS:
        return None
    return catalog.find(table.db, table.name)


def _scalar(holder: exp.Subquery, rows: pa.Table) -> exp.Expr | None:
    if rows.num_rows > 1:
        raise ExecutionError(
            f"a sub-query that stands for one value has {rows.num_rows} rows",
            span=terms.span_of(holder),
            hint="aggregate in it, add TOP 1, or use IN",
        )
    found = terms.sql_type(holder)
    if found is None:
        return None
    return _literal(rows.column(0)[0].as_py() if rows.num_rows else None, found)


def _list(holder: exp.In, values: pa.ChunkedArray) -> exp.Expr | None:
    if len(values) == 0:
        return exp.Boolean(this=False)
    is_plain = pa.types.is_integer(values.type) or pa.types.is_float64(values.type) or _is_text(values.type)
    if len(values) > MAX_LIST or not is_plain:
        return None
    items = [_constant(value) for value in values.to_pylist()]
    known = [item for item in items if item is not None]
    return exp.In(this=holder.this.copy(), expressions=known) if len(known) == len(items) else None


def _constant(value: object) -> exp.Expr | None:
    """Return the literal of a plain value; None if there is none."""
    match value:
        case None:
            return exp.Null()
        case bool():
            return exp.Boolean(this=value)
        case int():
            return exp.Literal.number(value) if value >= 0 else exp.Neg(this=exp.Literal.number(-value))
        case float() if math.isfinite(value):
            text = repr(abs(value))
            node = exp.Literal.number(text if "e" in text else f"{text}e0")
            return exp.Neg(this=node) if math.copysign(1.0, value) < 0 else node
        case str():
            return exp.Literal.string(value)
        case _:
            return None


def _literal(value: object, found: SqlType) -> exp.Expr | None:
    """Return `CAST(<literal> AS type)`; None if the value has no literal."""
    if isinstance(value, (datetime.datetime, datetime.date, decimal.Decimal)):
        node: exp.Expr | None = exp.Literal.string(str(value))
    else:
        node = _constant(value)
    if node is None or found.name == "NULL":
        return node
    node.meta["sql_type"] = found
    return exp.Cast(this=node, to=terms.named_type(found.name))
