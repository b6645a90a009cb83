"""When may a block run tile by tile? The owner rule, as an essay and a proof.

A leaf runs the same SELECT many times, each time on one *task range* R of the line; the ranges of all tasks cover the line and
do not overlap. The union of the runs must be the rows of the one SELECT over everything, each exactly as often. That holds when one
relation, the **owner**, makes every output row in exactly one place:

1. The owner is sharded and is read at home: the rows of the owner in task R are those whose cell is in R. Every owner row is in
   exactly one task.
2. The owner is never NULL in an output row, so it is not on the null-supplied side of an outer join. Then each output row has one
   owner row, and can only be made in that row's task.
3. In that task, every *other* relation offers all rows that can meet the owner rows of R, none of them twice. For a replicated
   relation that is the whole table. For a sharded relation it must follow from an **edge**:

   * *Key edge.* Equality of the locality keys of two tables of one family: a key lies in one cell (checked at publish), so the
     partner of a row in cell c is in cell c. The partner needs the same margin as the relation that it is joined to. (A child is
     placed by its director's position, so a child that is tied to a director in the margin is in the margin too.)
   * *Sky edge.* `DISTANCE(x, y) < r` of two positions that are places on the line: the partner of a row within margin m of R is
     within m + r of R. Margins add up along a chain of sky edges.

   The edge must really hold for the rows in question. If the relation is not null-supplied, every output row fulfils the terms of
   WHERE and of inner ONs, so an edge among those will do. If it comes by `LEFT JOIN x ON ..`, only a term of that ON decides
   which rows of x match; an edge in WHERE would come too late, since a row of x that is missing from the task would already
   have become NULLs.

Worked examples, with tables Object (director), ForcedSource (its child), Star (director of another family), Filter (replicated):

* `Object o JOIN ForcedSource f ON f.objectId = o.objectId`: owner o, f at home by a key edge.
* `Object o LEFT JOIN ForcedSource f ON ..`: the same; owner f is impossible, it is null-supplied.
* `Object a, Object b WHERE DISTANCE(a, b) < 0.01`: owner a, b with margin 0.01 degrees.
* `Object o, Star s, Star t WHERE DISTANCE(o, s) < 0.01 AND DISTANCE(s, t) < 0.02`: owner s is best (margins 0.01 and 0.02);
  owner o would need 0.03 for t.
* `Filter p LEFT JOIN ForcedSource f ON f.band = p.band`: refused: no owner; each task would put out the unmatched filters.
* `ForcedSource f, Star s WHERE DISTANCE(f, s) < 0.01`: refused: f lies where its *object* is, its own position says nothing.

A block of replicated relations only needs no owner: it is *single*, one task on any worker.

A refusal is no error: the caller gathers the relations instead (`plan.cut`), and EXPLAIN shows the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from qengine.errors import Span
from qengine.plan.logical import Block


@dataclass(frozen=True, slots=True, kw_only=True)
class Locality:
    """Proof that a block is leaf-local: the owner, and for every sharded relation the margin in degrees within which it is read."""

    owner: str
    margin_deg: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a block is not leaf-local."""

    reason: str
    span: Span | None = None


def prove_locality(block: Block) -> Locality | Refusal:
    """Return the locality with the smallest total margin, or the reason why there is none."""
    if block.obstacle:
        return Refusal(reason=f"the block contains {block.obstacle}", span=block.span)
    sharded = [r for r in block.relations.values() if r.is_sharded]
    if not sharded:
        return Locality(owner="", margin_deg={})
    candidates = [r.alias for r in sharded if not r.is_null_supplied]
    if not candidates:
        return Refusal(reason="every sharded relation may be replaced by NULLs in an outer join, so no relation can own the rows")
    stuck = ""
    proofs = []
    for owner in candidates:
        margins = margins_from(block, owner)
        missing = [r.alias for r in sharded if r.alias not in margins]
        if missing:
            stuck = stuck or f"{missing[0]} is not tied to {owner} by its family's key or by a distance between declared positions"
        else:
            proofs.append(Locality(owner=owner, margin_deg=margins))
    if not proofs:
        return Refusal(reason=stuck)
    return min(proofs, key=lambda p: (sum(p.margin_deg.values()), -_work(block, p.owner)))


def _work(block: Block, alias: str) -> int:
    """Bytes of the relation: the largest makes the best owner, since tasks are cut along its parts."""
    table = block.relations[alias].table
    return int(table.home.bytes.sum()) if table is not None else 0


def margins_from(block: Block, owner: str) -> Mapping[str, float]:
    """Return the least margin in degrees of every relation that can be reached from the owner."""
    return _shortest(_steps(block), owner, lambda near, far, scope: _holds_for(block, far, scope))


def distances(block: Block, alias: str) -> Mapping[str, float]:
    """Return for relations whose rows are in every output row that `alias` takes part in how far, in degrees, they can be from it.

    A fact about such a relation restricts `alias` too. If `alias` is itself null-supplied the way out of it leads over the terms of
    its own ON.
    """

    def is_usable(near: str, far: str, scope: str) -> bool:
        if block.relations[far].is_null_supplied:
            return False
        return scope == near if block.relations[near].is_null_supplied else scope == ""

    return _shortest(_steps(block), alias, is_usable)


def _steps(block: Block) -> list[tuple[str, str, float, str]]:
    steps = [(e.left, e.right, 0.0, e.scope) for e in block.key_edges]
    steps += [(e.left, e.right, e.radius_deg, e.scope) for e in block.sky_edges if e.is_on_line]
    return steps + [(right, left, radius, scope) for left, right, radius, scope in steps]


def _shortest(
    steps: list[tuple[str, str, float, str]], start: str, is_usable: Callable[[str, str, str], bool]
) -> Mapping[str, float]:
    """Return the least sum of radii from `start` to every relation that usable steps reach (Dijkstra over few vertices)."""
    settled: dict[str, float] = {}
    reached = {start: 0.0}
    while reached:
        alias = min(reached, key=lambda a: reached[a])
        settled[alias] = reached.pop(alias)
        for near, far, radius, scope in steps:
            if near != alias or far in settled or not is_usable(near, far, scope):
                continue
            margin = settled[alias] + radius
            reached[far] = min(margin, reached.get(far, margin))
    return settled


def _holds_for(block: Block, alias: str, scope: str) -> bool:
    """Say whether an edge of this scope decides which rows of the relation meet the rest."""
    relation = block.relations[alias]
    return scope == alias if relation.is_null_supplied else scope == ""
