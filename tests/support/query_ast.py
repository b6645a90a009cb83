"""A small tree of queries, only as rich as the generator needs; `printers` writes it as ADQL and as the oracle's SQL.

Nodes are frozen and hold tuples, so a failing query can be made smaller by `dataclasses.replace` (`reduce`). Meaning is ADQL's:
`Quotient` divides integers and truncates, ORDER BY puts NULL last, TOP counts after OFFSET.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Node:
    """Base of everything below."""


# -- values -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Column(Node):
    alias: str
    name: str


@dataclass(frozen=True, slots=True)
class Flag(Node):
    """A boolean column, which counts as 0 or 1."""

    column: Column


@dataclass(frozen=True, slots=True)
class Shared(Node):
    """The column of USING or NATURAL: unqualified in ADQL, `COALESCE` of both sides in the oracle."""

    name: str
    aliases: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Literal(Node):
    value: int | float | str | datetime | None


@dataclass(frozen=True, slots=True)
class Binary(Node):
    """`op` is one of + - * / ||; `/` here is never between two integers."""

    op: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Quotient(Node):
    """Division of two integers."""

    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Negative(Node):
    value: Node


@dataclass(frozen=True, slots=True)
class Call(Node):
    """A function by its ADQL name."""

    name: str
    args: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Case(Node):
    whens: tuple[tuple[Node, Node], ...]
    default: Node | None


@dataclass(frozen=True, slots=True)
class Cast(Node):
    value: Node
    type: str


@dataclass(frozen=True, slots=True)
class Aggregate(Node):
    """COUNT(*) when `arg` is None."""

    name: str
    arg: Node | None
    distinct: bool = False
    only: Node | None = None
    """The condition of FILTER (WHERE ..)."""


@dataclass(frozen=True, slots=True)
class Window(Node):
    """`call` is an `Aggregate` or a `Call` such as RANK()."""

    call: Node
    partition: tuple[Node, ...]
    order: tuple[tuple[Node, bool], ...]


@dataclass(frozen=True, slots=True)
class Scalar(Node):
    query: Node


@dataclass(frozen=True, slots=True)
class Distance(Node):
    """Degrees between two positions (pairs of values); `form` is "points" or "numbers"."""

    one: tuple[Node, Node]
    two: tuple[Node, Node]
    form: str = "points"


# -- regions and predicates ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Circle(Node):
    """The centre may be columns."""

    lon: Node
    lat: Node
    radius: float


@dataclass(frozen=True, slots=True)
class Polygon(Node):
    """`center` sees all vertices; it is only for the oracle."""

    center: tuple[float, float]
    vertices: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Box(Node):
    center: tuple[float, float]
    size: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Inside(Node):
    """`form`: contains=1, 1=contains, contains=0, intersects=1, value (the 0/1 integer itself)."""

    at: tuple[Node, Node]
    region: Node
    form: str = "contains=1"

    @property
    def is_negated(self) -> bool:
        return self.form.endswith("=0")


@dataclass(frozen=True, slots=True)
class Within(Node):
    """`DISTANCE(one, two) op radius`, or with the sides exchanged when `is_flipped`."""

    one: tuple[Node, Node]
    two: tuple[Node, Node]
    op: str
    radius: float | Node
    form: str = "points"
    is_flipped: bool = False


@dataclass(frozen=True, slots=True)
class Compare(Node):
    op: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Between(Node):
    value: Node
    low: Node
    high: Node
    negated: bool = False


@dataclass(frozen=True, slots=True)
class InList(Node):
    value: Node
    items: tuple[Node, ...]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Like(Node):
    value: Node
    pattern: str
    negated: bool = False
    ignore_case: bool = False


@dataclass(frozen=True, slots=True)
class IsNull(Node):
    value: Node
    negated: bool = False


@dataclass(frozen=True, slots=True)
class And(Node):
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Or(Node):
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Not(Node):
    item: Node


@dataclass(frozen=True, slots=True)
class InQuery(Node):
    value: Node
    query: Node
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Exists(Node):
    query: Node
    negated: bool = False


# -- queries ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TableRef(Node):
    """A base table (`schema` given) or a CTE."""

    schema: str
    name: str
    alias: str


@dataclass(frozen=True, slots=True)
class Derived(Node):
    query: Node
    alias: str


@dataclass(frozen=True, slots=True)
class Join(Node):
    """`kind`: INNER, LEFT, RIGHT, FULL or "," (then no condition). Exactly one of `on`, `using`, `natural` otherwise.

    `shared` are (name, alias left, alias right) of USING and NATURAL.
    """

    kind: str
    left: Node
    right: Node
    on: Node | None = None
    using: tuple[tuple[str, str, str], ...] = ()
    natural: bool = False


@dataclass(frozen=True, slots=True)
class Item(Node):
    """An output column. An empty alias prints none; `name` is then what the column must be called."""

    value: Node
    alias: str
    name: str


@dataclass(frozen=True, slots=True)
class Star(Node):
    """`*` (or `alias.*`) over one base table, whose columns are `names`."""

    alias: str
    names: tuple[str, ...]
    qualified: bool


@dataclass(frozen=True, slots=True)
class Order(Node):
    """Sort by output column `output` (from 0), printed by `form` (ordinal | name | value), or by `value` when `output` is -1."""

    output: int
    value: Node | None
    descending: bool
    form: str = "value"


@dataclass(frozen=True, slots=True, kw_only=True)
class Select(Node):
    items: tuple[Node, ...]
    source: Node
    where: Node | None = None
    group: tuple[Node, ...] = ()
    sets: str = ""
    """ROLLUP, CUBE or SETS (each key alone, and all rows): how `group` is grouped."""
    having: Node | None = None
    qualify: Node | None = None
    order: tuple[Order, ...] = ()
    distinct: bool = False
    top: int | None = None
    offset: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SetOp(Node):
    op: str
    all: bool
    left: Node
    right: Node
    order: tuple[Order, ...] = ()
    offset: int | None = None


@dataclass(frozen=True, slots=True)
class With(Node):
    """CTEs (name, body) before a `Select` or `SetOp`."""

    ctes: tuple[tuple[str, Node], ...]
    body: Node


Query = Select | SetOp | With


def body_of(query: Node) -> Select | SetOp:
    """The outermost SELECT or set operation."""
    body = query.body if isinstance(query, With) else query
    assert isinstance(body, Select | SetOp)
    return body


def outputs(query: Node) -> tuple[Node, ...]:
    """The output items, `Star` expanded into columns; of the left operand in a set operation."""
    body = body_of(query)
    if isinstance(body, SetOp):
        return outputs(body.left)
    found: list[Node] = []
    for item in body.items:
        if isinstance(item, Star):
            found += [Item(Column(item.alias, name), "", name) for name in item.names]
        else:
            found.append(item)
    return tuple(found)
