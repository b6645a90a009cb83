"""What planning knows about one query block before anything is decided: relations, conjuncts, edges, regions, keys, ranges.

A *block* is one SELECT with its FROM. `lift` reads these facts from the bound tree; `locality`, `split` and `prune` decide by
them. All values are frozen; trees inside are never changed, rules copy them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sqlglot import exp

from qengine.catalog.model import TableSnapshot
from qengine.errors import Span
from qengine.plan.values import Test
from qengine.sky.cells import RangeSet
from qengine.sky.region import Region

Tree = exp.Query
"""A statement, for stations that only pass it on."""

STEPS = "qe step"
"""Schema of the tables that steps make (`plan.broadcast`); no statement of a user can name it."""

UNKNOWN = -1
"""Snapshot number of a step's table before the step has run: nothing may be concluded from its rows."""


Place = tuple[str, str]
"""A column: (alias, name)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """One item of FROM. `table` is None for derived tables and CTEs.

    `is_null_supplied` says that an outer join may replace its row by NULLs; `side` is the side of the join that brings it in
    (empty for FROM and inner joins). `inner` are the facts of a derived table; `is_lateral` says that it refers to relations
    outside of it, so that it is computed for each of their rows. An ASOF join makes a relation `is_chosen`: of its matching rows
    one is taken.
    """

    alias: str
    table: TableSnapshot | None
    side: str
    is_null_supplied: bool
    inner: Block | None = None
    is_lateral: bool = False
    is_chosen: bool = False

    @property
    def is_sharded(self) -> bool:
        return self.table is not None and self.table.inline is None and self.table.table.is_sharded


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a column comes from. `alias` is the relation of the block that has it (or, for a column of an outer block, the table
    itself); `base` is the alias of the table, inside derived tables if need be, and `column` its column there."""

    alias: str
    base: str
    column: str
    table: TableSnapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Conjunct:
    """One term of WHERE or ON. `scope` is empty when every row that the block puts out fulfils it; otherwise it is the alias of the
    relation whose outer join it belongs to, and it only decides which rows of that relation match."""

    node: exp.Expr
    aliases: frozenset[str]
    scope: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyEdge:
    """Equality of two locality keys of one family: the rows lie in the same cell. `left_base` and `right_base` are the tables that
    have the keys where `left` and `right` are derived tables, else the same."""

    left: str
    right: str
    scope: str
    left_base: str
    right_base: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SkyEdge:
    """The positions of the two rows are at most `radius_deg` apart. `node` is the conjunct that says so, `columns` the positions of
    `left` and `right`. If both are places on the line (`is_on_line`) they are those of the tables `left_base` and `right_base`."""

    left: str
    right: str
    radius_deg: float
    scope: str
    node: exp.Expr
    columns: Mapping[str, tuple[str, str]]
    is_on_line: bool
    left_base: str
    right_base: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchEdge:
    """Equality of the other key of the match table `match` with the key of a director, whose rows are at most `radius_deg` away."""

    match: str
    director: str
    radius_deg: float
    scope: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionFact:
    """Rows of `alias` whose own position is outside `region` do not fulfil the conjunct. `is_on_line`: that position is also the
    row's place on the line (a director's), so that coverage prunes. `base` is the table inside `alias` that has the position, if
    not itself."""

    alias: str
    region: Region
    is_on_line: bool
    base: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFact:
    """The locality key of `base`, which is `alias` or a table inside it, is one of `values`. `family` names the director whose
    index
    knows the cells."""

    alias: str
    family: str
    values: tuple[int | str, ...]
    base: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeFact:
    """A numeric column of `base`, which is `alias` or a table inside it, lies in [low, high]; infinite where open."""

    alias: str
    column: str
    low: float
    high: float
    base: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueFact:
    """Rows of the table `alias` that fulfil the block's terms fulfil `test`."""

    alias: str
    test: Test
    base: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceFact:
    """Rows of `alias` that fulfil the block's terms have their places on the line in `cells`."""

    alias: str
    cells: RangeSet


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathering:
    """A construct that looks at several rows at once: `kind` is "GROUP BY", "an aggregate", "DISTINCT", "a window" or "LIMIT". Rows
    that differ in one of the columns `places` never meet in it."""

    kind: str
    places: frozenset[Place]


@dataclass(frozen=True, slots=True, kw_only=True)
class Nested:
    """A sub-query in an expression of a block. `block` is None where it is not one SELECT. `is_early` says that it stands where
    rows
    are made (WHERE, ON), not where they are put out; `span` is its place."""

    node: exp.Expr
    block: Block | None
    is_early: bool
    span: Span | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """The facts of one SELECT. `obstacle` is the first construct that keeps the whole block from being a leaf (a set operation as
    a derived table, a right join), empty if there is none; `span` is where it stands.

    `outputs` are the output columns that are plain columns; `gatherings` what looks at several rows; `nested` the sub-queries in
    expressions; `outer` the aliases of enclosing blocks that the block or anything inside it names. A block that is not
    `is_repeatable` may give other rows when it runs again (RAND, LIMIT, windows with ties).
    """

    relations: Mapping[str, Relation]
    conjuncts: tuple[Conjunct, ...]
    key_edges: tuple[KeyEdge, ...]
    sky_edges: tuple[SkyEdge, ...]
    match_edges: tuple[MatchEdge, ...]
    regions: tuple[RegionFact, ...]
    keys: tuple[KeyFact, ...]
    ranges: tuple[RangeFact, ...]
    obstacle: str
    span: Span | None
    outputs: Mapping[str, Place]
    gatherings: tuple[Gathering, ...]
    nested: tuple[Nested, ...]
    outer: frozenset[str]
    is_repeatable: bool
    values: tuple[ValueFact, ...] = ()

    def table_of(self, alias: str) -> TableSnapshot | None:
        """Return the table of this alias, in this block or anywhere inside it."""
        if (relation := self.relations.get(alias)) is not None:
            return relation.table
        return next((found for block in self.inside() if (found := block.table_of(alias)) is not None), None)

    def tables(self) -> Mapping[str, TableSnapshot]:
        """Return all tables by alias, of this block and anywhere inside it."""
        found = {alias: r.table for alias, r in self.relations.items() if r.table is not None}
        for block in self.inside():
            found.update(block.tables())
        return found

    def inside(self) -> Iterator[Block]:
        """Yield the blocks directly inside: derived tables and sub-queries."""
        yield from (r.inner for r in self.relations.values() if r.inner is not None)
        yield from (n.block for n in self.nested if n.block is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """Keys whose cells have to be known before a leaf can be pruned; `table` is the director that has the index."""

    schema: str
    table: str
    values: tuple[int | str, ...]
