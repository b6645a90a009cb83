"""A join on distance as an equi-join on a grid, in SQL.

`a JOIN b ON qe_distance(a.ra, a.dec, b.ra, b.dec) < r` as written would compare all pairs. Instead both sides are put on a grid
(equi-joins on integers are what is fast): zone `z = floor((dec + 90) / h)`, and in each zone `n(z)` cells in right
ascension, `c = floor(ra n(z) / 360)`. One side, *home*, has each row once, in its own cell; the other, *expanded*, has each
row once in every cell that meets the circle of radius r around it. So a pair closer than r meets in exactly one cell, and the
exact test decides.

With h >= 2.5 r the circle meets at most two zones, `floor((dec - r + 90) / h)` and `floor((dec + r + 90) / h)`. In each zone
it meets at most two cells: the half-width of the circle in right ascension is asin(sin r / cos dec) (the point of tangency of
the meridian), a cell is at least h / cos(largest |dec| of the zone) wide, and zones within 10 h of a pole have one single
cell. Zones have one cell or at least three, so that left and right neighbours differ when right ascension wraps. r is widened
by 1e-9 degrees against rounding.

A LEFT JOIN works the same way when the null-supplied side is the expanded one: an unmatched row of the home side meets nobody.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import sqlglot
from sqlglot import exp

from qengine.plan import terms
from qengine.plan.logical import Block, Relation

SLACK_DEG = 1e-9
MIN_CELL_DEG = 10 / 3600
POLAR_ZONES = 10
SKY_AREA_DEG2 = 41252.96


@dataclass(frozen=True, slots=True, kw_only=True)
class GridEdge:
    """One distance edge: `home` and `expanded` are aliases, `positions` their (ra, dec) columns."""

    home: str
    expanded: str
    home_position: tuple[str, str]
    expanded_position: tuple[str, str]
    radius_deg: float
    cell_deg: float


def grid_edges(block: Block, owner: str) -> list[GridEdge]:
    """Choose the distance edges of a block that need a grid: those between relations that no equality ties together.

    The null-supplied side of a LEFT JOIN is expanded, else the side with fewer rows. A FULL JOIN has no grid: it would put out an
    unmatched row of the expanded side once for each of its cells.
    """
    tied = {c.aliases for c in block.conjuncts if len(c.aliases) == 2 and isinstance(terms.bare(c.node), exp.EQ)}
    chosen = []
    for edge in block.sky_edges:
        pair = frozenset((edge.left, edge.right))
        if pair in tied or not pair <= block.relations.keys():
            continue
        relations = [block.relations[alias] for alias in (edge.left, edge.right)]
        if edge.scope in pair and block.relations[edge.scope].side == "LEFT":
            expanded = edge.scope
        elif edge.scope == "" and not any(r.is_null_supplied for r in relations):
            expanded = min(relations, key=lambda r: (_rows(r), r.alias == owner)).alias
        else:
            continue
        home = edge.left if expanded == edge.right else edge.right
        tied.add(pair)
        chosen.append(
            GridEdge(
                home=home,
                expanded=expanded,
                home_position=edge.columns[home],
                expanded_position=edge.columns[expanded],
                radius_deg=edge.radius_deg,
                cell_deg=cell_size_deg(edge.radius_deg, _rows(block.relations[home])),
            )
        )
    return chosen


def _rows(relation: Relation) -> int:
    return relation.table.rows if relation.table is not None else 0


def grid_join(select: exp.Select, edges: Sequence[GridEdge], pushed: dict[str, list[exp.Expr]]) -> exp.Select:
    """Return a SELECT with the same rows in which the relations of the edges are on grids.

    `pushed` are terms per alias that may be applied before the grid is made.
    """
    select = select.copy()
    items = {item.alias_or_name: item for item, _ in terms.from_items(select)}
    ctes: list[exp.CTE] = []
    aliases = list(dict.fromkeys(a for e in edges for a in (e.home, e.expanded)))
    for number, alias in enumerate(aliases):
        item = items[alias]
        used = list(dict.fromkeys(c.name for c in select.find_all(exp.Column) if c.table == alias))
        source: exp.Expr = _base(item, alias, used, edges, pushed.get(alias, []))
        name = f"qe grid {number}"
        for index, edge in enumerate(edges):
            if alias not in (edge.home, edge.expanded):
                continue
            previous = f"{name} {index}"
            is_expanded = alias == edge.expanded
            ctes.append(_cte(previous, source, is_materialized=False))
            rows = _expanded(index, edge) if is_expanded else _home(index, edge)
            source = _over(rows, previous)
        ctes.append(_cte(name, source, is_materialized=False))
        item.replace(terms.table_node(name, alias))
    for index, edge in enumerate(edges):
        meeting: list[exp.Expr] = []
        for part in (f"zone {index}", f"cell {index}"):
            home, expanded = terms.quoted_column(edge.home, part), terms.quoted_column(edge.expanded, part)
            meeting.append(exp.EQ(this=home, expression=expanded))
        _require(select, edge, meeting)
    with_ = select.args.get("with_")
    select.set("with_", exp.With(expressions=[*(with_.expressions if with_ else ()), *ctes]))
    return select


def cell_size_deg(radius_deg: float, rows: int) -> float:
    """Return h: at least 2.5 r, and so large that a cell holds about one row of a table spread over the sky."""
    density = rows / SKY_AREA_DEG2
    spacing = 1 / math.sqrt(density) if density > 0 else MIN_CELL_DEG
    return max(2.5 * (radius_deg + SLACK_DEG), min(spacing, MIN_CELL_DEG), 1e-6)


def _base(item: exp.Expr, alias: str, used: list[str], edges: Sequence[GridEdge], pushed: list[exp.Expr]) -> exp.Select:
    columns: list[exp.Expr] = [terms.aliased(terms.quoted_column(alias, name), name) for name in used]
    present: list[exp.Expr] = []
    for index, edge in enumerate(edges):
        if alias not in (edge.home, edge.expanded):
            continue
        position = edge.home_position if alias == edge.home else edge.expanded_position
        for part, name in zip(("lon", "lat"), position, strict=True):
            columns.append(terms.aliased(exp.cast(terms.quoted_column(alias, name), "DOUBLE"), f"{part} {index}"))
            if alias == edge.expanded:
                present.append(exp.Not(this=exp.Is(this=terms.quoted_column(alias, name), expression=exp.Null())))
    select = exp.Select(expressions=columns).from_(item.copy(), copy=False)
    condition = terms.all_of([*present, *pushed])
    return select.where(condition, copy=False) if condition is not None else select


def _require(select: exp.Select, edge: GridEdge, meeting: list[exp.Expr]) -> None:
    """Add the equalities to the join that brings in the later of the two relations, or to WHERE if that is a cross join."""
    for item, join in reversed(list(terms.from_items(select))):
        if item.alias_or_name not in (edge.home, edge.expanded) or join is None:
            continue
        if join.args.get("on") is not None:
            join.set("on", exp.and_(*meeting, join.args["on"], copy=False, wrap=True))
            return
        break
    where = select.args.get("where")
    select.set("where", exp.Where(this=exp.and_(*meeting, *([where.this] if where else []), copy=False, wrap=True)))


def _cte(name: str, body: exp.Expr, *, is_materialized: bool) -> exp.CTE:
    alias = exp.TableAlias(this=exp.to_identifier(name, quoted=True))
    return exp.CTE(this=body, alias=alias, materialized=is_materialized)


def _over(text: str, source: str) -> exp.Expr:
    """Parse a statement of this module over the CTE `source`. The text holds our own numbers and names only."""
    tree = sqlglot.parse_one(text, dialect="duckdb")
    for table in list(tree.find_all(exp.Table)):
        if table.name == "source":
            table.replace(terms.table_node(source, "source"))
    return tree


def _cells(zone: str, h: float) -> str:
    """SQL for n(zone)."""
    furthest = f"greatest(abs({zone} * {h!r} - 90.0e0), abs(({zone} + 1) * {h!r} - 90.0e0))"
    count = f"CAST(floor(360.0e0 * cos(radians(least({furthest}, 90.0e0))) / {h!r}) AS BIGINT)"
    return f"(CASE WHEN {furthest} >= {90 - POLAR_ZONES * h!r} OR {count} < 3 THEN 1 ELSE {count} END)"


def _home(index: int, edge: GridEdge) -> str:
    """SQL that adds a row's own zone and cell."""
    zone, cell, h = f'"zone {index}"', f'"cell {index}"', edge.cell_deg
    place = f'CAST(floor("lon {index}" * "qe n" / 360.0e0) AS BIGINT)'
    # Only a director's right ascension is known to be in [0, 360), and % keeps the sign.
    return (
        f'SELECT * EXCLUDE ("qe n"), (({place} % "qe n") + "qe n") % "qe n" AS {cell} FROM ('
        f'SELECT *, {_cells(zone, h)} AS "qe n" FROM ('
        f'SELECT *, CAST(floor(("lat {index}" + 90.0e0) / {h!r}) AS BIGINT) AS {zone} FROM source) AS q) AS p'
    )


def _expanded(index: int, edge: GridEdge) -> str:
    """SQL that puts a row into every cell that its circle meets: up to two zones, up to two cells in each."""
    h, r = edge.cell_deg, edge.radius_deg + SLACK_DEG
    lon, lat = f'"lon {index}"', f'"lat {index}"'
    low, high, width, n_low, n_high = (f'"qe {name}"' for name in ("low", "high", "width", "n low", "n high"))
    zones = (f"CAST(floor(({lat} {sign} {r!r} + 90.0e0) / {h!r}) AS BIGINT)" for sign in "-+")
    half = (
        f"CASE WHEN abs({lat}) + {r!r} >= 90.0e0 THEN 180.0e0 "
        f"ELSE degrees(asin(least(1.0e0, {math.sin(math.radians(r))!r} / cos(radians({lat}))))) + {SLACK_DEG!r} END"
    )

    def branch(zone: str, count: str, sign: str, condition: str) -> str:
        place = f"CAST(floor(({lon} {sign} {width}) * {count} / 360.0e0) AS BIGINT)"
        return (
            f"SELECT * EXCLUDE ({low}, {high}, {width}, {n_low}, {n_high}), "
            f'{zone} AS "zone {index}", (({place} % {count}) + {count}) % {count} AS "cell {index}" '
            f"FROM sized{condition}"
        )

    def differs(count: str) -> str:
        return f"{count} > 1 AND floor(({lon} - {width}) * {count} / 360.0e0) <> floor(({lon} + {width}) * {count} / 360.0e0)"

    branches = " UNION ALL ".join(
        (
            branch(low, n_low, "-", ""),
            branch(low, n_low, "+", f" WHERE {differs(n_low)}"),
            branch(high, n_high, "-", f" WHERE {high} <> {low}"),
            branch(high, n_high, "+", f" WHERE {high} <> {low} AND {differs(n_high)}"),
        )
    )
    low_zone, high_zone = zones
    return (
        f"WITH sized AS MATERIALIZED (SELECT *, {_cells(low, h)} AS {n_low}, {_cells(high, h)} AS {n_high} FROM ("
        f"SELECT *, {low_zone} AS {low}, {high_zone} AS {high}, {half} AS {width} FROM source) AS q) {branches}"
    )
