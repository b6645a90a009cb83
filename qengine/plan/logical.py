"""What planning knows about one query block before anything is decided: relations, conjuncts, edges, regions, keys, ranges.

A *block* is one SELECT with its FROM. `lift` reads these facts from the bound tree; `locality`, `split` and `prune` decide by
them. All values are frozen; trees inside are never changed, rules copy them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlglot import exp

from qengine.catalog.model import TableSnapshot
from qengine.errors import Span
from qengine.sky.cells import RangeSet
from qengine.sky.region import Region

Tree = exp.Query
"""A statement, for stations that only pass it on."""

STEPS = "qe step"
"""Schema of the tables that steps make (`plan.broadcast`); no statement of a user can name it."""

UNKNOWN = -1
"""Snapshot number of a step's table before the step has run: nothing may be concluded from its rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """One item of FROM. `table` is None for derived tables and CTEs.

    `is_null_supplied` says that an outer join may replace its row by NULLs; `side` is the side of the join that brings it in
    (empty for FROM and inner joins).
    """

    alias: str
    table: TableSnapshot | None
    side: str
    is_null_supplied: bool

    @property
    def is_sharded(self) -> bool:
        return self.table is not None and self.table.inline is None and self.table.table.is_sharded


@dataclass(frozen=True, slots=True, kw_only=True)
class Conjunct:
    """One term of WHERE or ON. `scope` is empty when every row that the block puts out fulfils it; otherwise it is the alias of the
    relation whose outer join it belongs to, and it only decides which rows of that relation match."""

    node: exp.Expr
    aliases: frozenset[str]
    scope: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyEdge:
    """Equality of two locality keys of one family: the rows lie in the same cell."""

    left: str
    right: str
    scope: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SkyEdge:
    """The places of the two rows on the line are less than `radius_deg` apart. `node` is the conjunct that says so."""

    left: str
    right: str
    radius_deg: float
    scope: str
    node: exp.Expr
    columns: Mapping[str, tuple[str, str]]
    is_on_line: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionFact:
    """Rows of `alias` whose own position is outside `region` do not fulfil the conjunct. `is_on_line`: that position is also the
    row's place on the line (a director's), so that coverage prunes."""

    alias: str
    region: Region
    is_on_line: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFact:
    """The locality key of `alias` is one of `values`. `family` names the director whose index knows the cells."""

    alias: str
    family: str
    values: tuple[int | str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeFact:
    """A numeric column of `alias` lies in [low, high]; infinite where open."""

    alias: str
    column: str
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceFact:
    """Rows of `alias` that fulfil the block's terms have their places on the line in `cells`."""

    alias: str
    cells: RangeSet


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """The facts of one SELECT. `obstacle` is the first construct that keeps the whole block from being a leaf (sub-query, derived
    table, right or full join), empty if there is none; `span` is where it stands."""

    relations: Mapping[str, Relation]
    conjuncts: tuple[Conjunct, ...]
    key_edges: tuple[KeyEdge, ...]
    sky_edges: tuple[SkyEdge, ...]
    regions: tuple[RegionFact, ...]
    keys: tuple[KeyFact, ...]
    ranges: tuple[RangeFact, ...]
    obstacle: str
    span: Span | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """Keys whose cells have to be known before a leaf can be pruned; `table` is the director that has the index."""

    schema: str
    table: str
    values: tuple[int | str, ...]
