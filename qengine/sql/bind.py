"""Station 2: ParsedQuery + Catalog -> BoundQuery.

Every name is resolved against the catalogue and every call against the function table. The bound tree is plain SQL in DuckDB's
meaning: rendered (`qengine.sql.render`) and run on one DuckDB that holds every table as schema.name and has the macros
(`qengine.sql.macros`), it gives the right rows. It is built anew, node by node; nothing of the user's text survives but
quoted names, literals and the order of things. What later stations may rely on:

* Tables. A base table is `exp.Table(this, db, alias)`, all quoted, with the declared spelling. A CTE is the same without `db`. The
  aliases of all FROM items are unique in the whole statement without regard to case, sub-queries and CTE bodies included.
* Columns. `exp.Column(this, table)`, both quoted, `table` one of those aliases; correlated references alike. `*` is
  expanded. Every output item of every block is an `exp.Alias`; names are unique without regard to case.
* Joins. `exp.Join` with `kind` INNER or CROSS, or with `side` LEFT, RIGHT or FULL; all but CROSS have `on`. NATURAL and USING
  are gone. The comma is CROSS. RIGHT and FULL joins of a comma list stand first. An ASOF JOIN has `method` ASOF, no `kind`, and
  side LEFT or none; its `on` is equalities and one comparison between the two sides. SEMI and ANTI joins are EXISTS in WHERE.
* Items of FROM. Tables, `exp.Subquery` of a query, and `exp.Lateral` of an `exp.Subquery`, whose query may name the items before
  it. UNNEST is a LATERAL SELECT without FROM of `unnest(..)`; VALUES is a derived table, whose SELECT alone reads `exp.Values`.
* Groups. GROUP BY has plain keys in `expressions`, or `grouping_sets` with one `exp.GroupingSets` of tuples and no
  `expressions`: ROLLUP, CUBE and products of them are written out. `grouping(..)` is `exp.Anonymous`.
* DISTINCT ON is QUALIFY of ROW_NUMBER. Named windows are written out. Rows in IN are comparisons or EXISTS.
* Members of lists and fields of structures are `list_extract`, `list_slice` and `struct_extract`.
* Set operations (`exp.Union`, `Intersect`, `Except`) carry no ORDER BY, LIMIT, OFFSET or types to be reconciled: operands have
  equal types, compound ones stand in `exp.Subquery`, and the modifiers are on a SELECT around the whole.
* ORDER BY terms are expressions, never ordinals or output names, each an `exp.Ordered` with `nulls_first` set explicitly (False
  but where the statement says NULLS FIRST). A constant term or group key is a CAST, so that it is no ordinal.
* LIMIT and OFFSET hold number literals.
* Numbers are `exp.Literal` or `exp.Neg` of one; constant arithmetic is folded. Calls that are not marked aggregates are
  `exp.Anonymous` with DuckDB's name; `/` between integers is `exp.IntDiv` in ADQL.
* Geometry predicates are `qe_in_circle(ra, dec, ra0, dec0, r)` and `qe_in_polygon(ra, dec, [..])`, distances
  `qe_distance(ra1, dec1, ra2, dec2)`, all in degrees; `CONTAINS(..) = 0` is NOT of the predicate. Geometry values are
  `exp.Array`.
* Aggregates outside windows have `meta["aggregate"]`; FILTER has become CASE. SUM of integers is `CAST(SUM(..) AS BIGINT)`.
* `meta["sql_type"]` is on every value and condition, `meta["span"]` where the place in the text is known, and `unit`, `ucd`,
  `utype`, `description` where a value has them. Only plain values live in meta, so `copy()` keeps them.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlglot import exp

from qengine.catalog.model import Catalog
from qengine.catalog.output import OutputColumn
from qengine.errors import QEngineError, QuerySyntaxError
from qengine.sql.blocks import Queries
from qengine.sql.deep import run_deep
from qengine.sql.language import language_of
from qengine.sql.parse import ParsedQuery
from qengine.sql.scopes import Context, Scope
from qengine.sql.spans import Places


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundQuery:
    """A query whose names and types are known. `tables` are those that it reads, as (schema, name)."""

    parsed: ParsedQuery
    tree: exp.Query
    columns: tuple[OutputColumn, ...]
    warnings: tuple[str, ...]
    tables: tuple[tuple[str, str], ...]


def bind(parsed: ParsedQuery, catalog: Catalog) -> BoundQuery:
    """Resolve names and types of `parsed` against `catalog`.

    Raise `UnknownNameError`, `QueryTypeError` or `UnsupportedQueryError`, with a position.
    """
    try:
        return run_deep(lambda: _bind(parsed, catalog))
    except QEngineError as error:
        error.located(parsed.text)
        raise


def _bind(parsed: ParsedQuery, catalog: Catalog) -> BoundQuery:
    context = Context(Places(parsed.tree, parsed.text), language_of(parsed.language), catalog)
    for extension in parsed.extensions:
        context.extension(extension)
    try:
        tree, columns = Queries(context).bind(parsed.tree, Scope(context))
    except RecursionError as error:
        raise QuerySyntaxError("the statement is nested too deeply") from error
    return BoundQuery(parsed=parsed, tree=tree, columns=columns, warnings=tuple(context.warnings), tables=tuple(context.tables))
