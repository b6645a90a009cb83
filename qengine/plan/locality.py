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
     within m + r of R. Margins add up along a chain of sky edges. If r is computed from columns, its largest possible value counts
     (`plan.radius`); if the statistics do not bound it there is no edge.
   * *Match edge.* A match table has a row for each pair of two directors' rows and lies complete by either of them; the layout that
     is read has one of its keys as locality key. The other key's director is within the largest separation that was measured when
     the table was loaded.

   The edge must really hold for the rows in question. If the relation is not null-supplied, every output row fulfils the terms of
   WHERE and of inner ONs, so an edge among those will do. If it comes by `LEFT JOIN x ON ..`, only a term of that ON decides
   which rows of x match; an edge in WHERE would come too late, since a row of x that is missing from the task would already
   have become NULLs. (`ASOF JOIN x ON ..` chooses among the rows that fulfil its ON: the same, and x is no owner.)

**FULL JOIN** has two sides that are null-supplied, and no owner. But if the two lie in one cell by a key edge of its ON and both
are read at home, each row of either side is in exactly one task, together with all its partners: matched, it is put out there with
them; unmatched, it is put out there alone. (Rows whose key is NULL or unknown have cells beyond the sky, by their key, and are
in exactly one task too.) With a sky edge this is wrong: a row of the margin would be put out by every task that reads it. There,
and where the sides are not tied at all, `plan.unfold` writes the join as its LEFT part and the rest of the other side.

**Blocks in FROM.** A derived table is proven first, by itself. If it has an owner, and its rows are complete in the task that has
the owner's row (see below), it is like a table: it lies where its owner lies. Edges of the block around it may end at any of its
output columns that is a plain column of a table inside. If that table is read with margin m inside, then its row is within m of the
owner's, so the edge is m longer. A margin that the block needs around the derived table is added to all tables inside: rows of a
derived table whose owner is in the ring but further away than the margin may be made from too little, but then they are too far
away to meet anything.

**Rows that look at each other.** GROUP BY, DISTINCT and windows are complete in the leaf if one of their columns is a *home key*:
the locality key of the owner, or of a relation that is never NULL and tied to the owner by key edges alone. All rows with one value
of it are in one cell, so in one task. (NULL is a value here, and has one cell.) Then HAVING and QUALIFY run in the leaf, and
no final part is needed. The key of a relation in the margin is no home key: its value occurs in the tasks of several owner rows.
Neither is a key that an outer join may have replaced by NULL. Aggregates without GROUP BY and LIMIT always look at rows of
other tasks. Such a block needs a final part; as a derived table it is refused.

**Sub-queries that refer to the row**: in EXISTS, IN, as a value, LATERAL. If every sharded relation inside is tied by an edge to a
relation of the row (or to another one inside that is), the task has exactly the rows that the sub-query would have found, and
whatever it does with them (count, sort, LIMIT) is right: no property of the sub-query's other clauses is needed, nor does it matter
where it stands. `x IN (SELECT y ..)` is such an edge itself: only rows with y = x matter. That is so for rows that are let
through. NOT IN also asks whether there is any NULL among all y, and x NULL makes it NULL unless there is no y at all, so there the
edge is taken only if neither side can be NULL in the files. NOT EXISTS has no such trap.

Worked examples, with tables Object (director), ForcedSource (its child), Star (director of another family), Filter (replicated):

* `Object o JOIN ForcedSource f ON f.objectId = o.objectId`: owner o, f at home by a key edge.
* `Object o LEFT JOIN ForcedSource f ON ..`: the same; owner f is impossible, it is null-supplied.
* `Object a, Object b WHERE DISTANCE(a, b) < 0.01`: owner a, b with margin 0.01 degrees.
* `Object o, Star s, Star t WHERE DISTANCE(o, s) < 0.01 AND DISTANCE(s, t) < 0.02`: owner s is best (margins 0.01 and 0.02);
  owner o would need 0.03 for t.
* `Object o JOIN (SELECT objectId, MAX(flux) AS m FROM ForcedSource GROUP BY objectId) g ON g.objectId = o.objectId`: g is complete
  in the leaf and lies where its ForcedSource lies; owner o or that ForcedSource.
* `SELECT s.starId, COUNT(*) FROM Object o, Star s WHERE DISTANCE(o, s) < 0.01 GROUP BY s.starId`: owner s, and then s.starId is a
  home key. With `GROUP BY o.objectId, s.starId` either owner would do. Were s tied to a third table that must be
  the owner, the groups would need a final part.
* `Star s WHERE NOT EXISTS (SELECT * FROM Object o WHERE DISTANCE(o, s) < 0.01)`: owner s, o with margin 0.01.
* `Filter p LEFT JOIN ForcedSource f ON f.band = p.band`: refused: no owner; each task would put out the unmatched filters.
  `Filter p WHERE NOT EXISTS (SELECT * FROM ForcedSource f ..)` likewise.
* `ForcedSource f, Star s WHERE DISTANCE(f, s) < 0.01`: refused: f lies where its *object* is, its own position says nothing.

A block of replicated relations only needs no owner: it is *single*, one task on any worker. As a derived table or sub-query it is
computed in every task, which must give the same rows each time.

A refusal is no error: the caller gathers the relations instead (`plan.cut`), and EXPLAIN shows the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from qengine.errors import Span
from qengine.plan.logical import Block, Gathering, Nested, Place, Relation


@dataclass(frozen=True, slots=True, kw_only=True)
class Locality:
    """Proof that a block is leaf-local.

    `owner` is the alias of the table that is read at home, empty for a single block, and `vertex` the relation of the block that
    has it (the owner itself, or a derived table). `margin_deg` has for every sharded table, those inside derived tables and
    sub-queries included, the margin in degrees within which it is read. `keys` are the outputs that are home keys, `unfinished`
    what needs a final part, and `inner` the proofs of derived tables.
    """

    owner: str
    margin_deg: Mapping[str, float]
    vertex: str = ""
    keys: frozenset[str] = frozenset()
    unfinished: tuple[Gathering, ...] = ()
    inner: Mapping[str, Locality] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a block is not leaf-local."""

    reason: str
    span: Span | None = None


def prove_locality(block: Block) -> Locality | Refusal:
    """Return the locality with the smallest total margin that needs no final part if there is one, or the reason why there is
    none."""
    proof = _prove(block)
    if isinstance(proof, Locality) and not proof.owner and (kept := _inline(block)):
        return Refusal(reason=f"the block contains the coordinator's table {kept} and nothing that is stored in tiles")
    return proof


def _prove(block: Block) -> Locality | Refusal:
    if block.obstacle:
        return Refusal(reason=f"the block contains {block.obstacle}", span=block.span)
    inner = _inner_proofs(block)
    if isinstance(inner, Refusal):
        return inner
    sharded = _sharded(block, inner)
    if not sharded:
        return _single(block, inner)
    full = next((r for r in block.relations.values() if r.side == "FULL"), None)
    if full is not None:
        candidates = _full_sides(block, inner, full)
        if isinstance(candidates, Refusal):
            return candidates
    else:
        # Which row of an ASOF join is chosen is decided where the row is that it is chosen for.
        candidates = [a for a in sharded if not (block.relations[a].is_null_supplied or block.relations[a].is_chosen)]
    if not candidates:
        return Refusal(reason="every sharded relation may be replaced by NULLs in an outer join, so no relation can own the rows")
    stuck: Refusal | None = None
    proofs = []
    for vertex in candidates:
        proof = _prove_with(block, inner, vertex, sharded, start=next(iter(block.relations)) if full is not None else vertex)
        if isinstance(proof, Refusal):
            stuck = stuck or proof
        else:
            proofs.append(proof)
    if stuck is not None and not proofs:
        return stuck
    return min(proofs, key=lambda p: (needs_final(p), sum(p.margin_deg.values()), -owner_bytes(block, p.owner)))


def margins_from(block: Block, owner: str) -> Mapping[str, float]:
    """Return the least margin in degrees of every relation that can be reached from the owner."""
    inner = _inner_proofs(block, is_lenient=True)
    return _reached(block, {} if isinstance(inner, Refusal) else inner, {owner: 0.0})


def distances(block: Block, alias: str, inner: Mapping[str, Locality] | None = None) -> Mapping[str, float]:
    """Return for relations whose rows are in every output row that `alias` takes part in how far, in degrees, they can be from it.

    A fact about such a relation restricts `alias` too. If `alias` is itself null-supplied the way out of it leads over the terms of
    its own ON. `inner` are the proofs of derived tables.
    """

    def is_usable(near: str, far: str, scope: str) -> bool:
        if far not in block.relations or block.relations[far].is_null_supplied or block.relations[far].is_chosen:
            return False
        start = block.relations[near]
        return scope == near if start.is_null_supplied or start.is_chosen else scope == ""

    return _shortest(_steps(block, inner or {}), {alias: 0.0}, is_usable)


def distances_inside(block: Block, outer: Mapping[str, float]) -> Mapping[str, float]:
    """The same for the tables of a sub-query that has a row: how far its rows can be from the relations `outer` of the row."""

    def is_usable(near: str, far: str, scope: str) -> bool:
        relation = block.relations.get(far)
        return relation is not None and relation.is_sharded and not (relation.is_null_supplied or relation.is_chosen) and not scope

    return {alias: far for alias, far in _shortest(_steps(block, {}), outer, is_usable).items() if alias in block.relations}


# -- one block -------------------------------------------------------------------------------------------


def _inner_proofs(block: Block, *, is_lenient: bool = False) -> Mapping[str, Locality] | Refusal:
    """Prove the derived tables that do not refer to the row. `is_lenient` leaves out what is refused."""
    proofs: dict[str, Locality] = {}
    for alias, relation in block.relations.items():
        if relation.inner is None or relation.is_lateral:
            continue
        proof = _prove(relation.inner)
        if isinstance(proof, Locality):
            proof = _as_relation(proof, relation.inner)
        if isinstance(proof, Locality):
            proofs[alias] = proof
        elif not is_lenient:
            return Refusal(reason=f"in the derived table {alias}, {proof.reason}", span=proof.span)
    return proofs


def _as_relation(proof: Locality, block: Block) -> Locality | Refusal:
    """Return the proof if the block's rows can be used in the leaf that makes them."""
    if proof.owner and proof.unfinished:
        return Refusal(reason=f"{proof.unfinished[0].kind} needs rows of other tasks", span=block.span)
    if not proof.owner and not block.is_repeatable:
        return Refusal(reason="rows that may differ from task to task would be made in each of them", span=block.span)
    return proof


def _sharded(block: Block, inner: Mapping[str, Locality]) -> list[str]:
    return [a for a, r in block.relations.items() if r.is_sharded or (a in inner and inner[a].owner)]


def _prove_with(block: Block, inner: Mapping[str, Locality], vertex: str, sharded: list[str], *, start: str) -> Locality | Refusal:
    """Prove that the block runs in the leaf of this owner. `start` is where edges are followed from: of a FULL JOIN, the left
    side."""
    reached = _reached(block, inner, {start: 0.0})
    missing = next((alias for alias in sharded if alias not in reached), None)
    if missing is not None:
        return Refusal(reason=f"{missing} is not tied to {vertex} by its family's key or by a distance between declared positions")
    margins = _flat(block, inner, reached)
    if isinstance(margins, Refusal):
        return margins
    complete = _with_sub_queries(block, margins)
    if isinstance(complete, Refusal):
        return complete
    near = {} if block.relations[vertex].is_null_supplied else distances(block, vertex, inner)
    home = frozenset(alias for alias, distance in near.items() if distance == 0.0)
    unfinished = tuple(g for g in block.gatherings if not any(_is_home_key(p, block, inner, home) for p in g.places))
    keys = frozenset(name for name, place in block.outputs.items() if _is_home_key(place, block, inner, home))
    owner = inner[vertex].owner if vertex in inner else vertex
    return Locality(owner=owner, vertex=vertex, margin_deg=complete, keys=keys, unfinished=unfinished, inner=inner)


def _single(block: Block, inner: Mapping[str, Locality]) -> Locality | Refusal:
    """Prove a block without sharded relations; its sub-queries must not have any either."""
    margins = _with_sub_queries(block, {})
    if isinstance(margins, Refusal):
        return margins
    return Locality(owner="", margin_deg={}, inner=inner)


def _inline(block: Block) -> str:
    """Return the alias of a table of the coordinator, in the block or inside it; empty if there is none."""
    for alias, relation in block.relations.items():
        if relation.table is not None and relation.table.inline is not None:
            return alias
    return next((found for b in block.inside() if (found := _inline(b))), "")


def _full_sides(block: Block, inner: Mapping[str, Locality], full: Relation) -> list[str] | Refusal:
    """Return the sides of a FULL JOIN if both are at home in the same cells."""
    left = next(iter(block.relations))
    sides = (left, full.alias)
    tied = any({e.left, e.right} == set(sides) and e.scope == full.alias for e in block.key_edges)
    reached = _reached(block, inner, {left: 0.0})
    if not tied or reached.get(full.alias) != 0.0:
        return Refusal(reason="the block contains a FULL JOIN whose sides are not tied by their family's key")
    for side in sides:
        base = inner[side].owner if side in inner else side
        snapshot = block.table_of(base)
        if snapshot is None or (side in inner and any(inner[side].margin_deg.values())):
            return Refusal(reason=f"the block contains a FULL JOIN, and {side} is not read at home")
        if not snapshot.table.line_column or snapshot.table.has_nan:
            return Refusal(
                reason=f"the block contains a FULL JOIN, and files of {snapshot.table.full_name} may hold rows of other tiles"
            )
    return max([left], [full.alias], key=lambda side: owner_bytes(block, inner[side[0]].owner if side[0] in inner else side[0]))


def _is_home_key(place: Place, block: Block, inner: Mapping[str, Locality], home: frozenset[str]) -> bool:
    alias, name = place
    if alias not in home:
        return False
    if alias in inner:
        return name in inner[alias].keys
    table = block.relations[alias].table
    return table is not None and bool(table.table.locality_key) and table.table.locality_key == name


def needs_final(proof: Locality) -> bool:
    """Say whether something in the block needs rows of other tasks; LIMIT always does and does not count."""
    return any(g.kind != "LIMIT" for g in proof.unfinished)


def owner_bytes(block: Block, alias: str) -> int:
    """Return the bytes of the relation: the largest makes the best owner, since tasks are cut along its parts."""
    table = block.table_of(alias)
    return int(table.home.bytes.sum()) if table is not None else 0


# -- sub-queries that refer to the row -------------------------------------------------------------------


def _with_sub_queries(block: Block, margins: Mapping[str, float]) -> Mapping[str, float] | Refusal:
    """Add the tables of LATERAL and of sub-queries in expressions to the margins, or say which of them is not tied."""
    found = dict(margins)
    for alias, relation in block.relations.items():
        if relation.is_lateral and relation.inner is not None:
            more = _tied(relation.inner, found, f"the LATERAL table {alias}")
            if isinstance(more, Refusal):
                return more
            found |= more
    for nested in block.nested:
        more = _nested(nested, found)
        if isinstance(more, Refusal):
            return more
        found |= more
    return found


def _nested(nested: Nested, margins: Mapping[str, float]) -> Mapping[str, float] | Refusal:
    if nested.block is None:
        return Refusal(reason="the block contains a sub-query that is not one SELECT", span=nested.span)
    found = _tied(nested.block, margins, "a sub-query")
    if not isinstance(found, Refusal) and not found and not nested.block.outer and not nested.block.is_repeatable:
        return Refusal(reason="a sub-query may give other rows in each task", span=nested.span)
    return found


def _tied(block: Block, outer: Mapping[str, float], what: str) -> Mapping[str, float] | Refusal:
    """Return the margins of the tables inside a block that is computed for each row of the relations `outer`."""
    if block.obstacle:
        return Refusal(reason=f"{what} contains {block.obstacle}", span=block.span)
    inner = _inner_proofs(block)
    if isinstance(inner, Refusal):
        return inner
    if any(r.side == "FULL" for r in block.relations.values()) and _sharded(block, inner):
        return Refusal(reason=f"{what} contains a FULL JOIN", span=block.span)
    reached = _reached(block, inner, outer)
    missing = next((alias for alias in _sharded(block, inner) if alias not in reached), None)
    if missing is not None:
        return Refusal(reason=f"{missing} in {what} is not tied to the rows outside of it", span=block.span)
    margins = _flat(block, inner, reached)
    if isinstance(margins, Refusal):
        return margins
    complete = _with_sub_queries(block, {**outer, **margins})
    if isinstance(complete, Refusal):
        return complete
    return {alias: margin for alias, margin in complete.items() if alias not in outer}


def _flat(block: Block, inner: Mapping[str, Locality], reached: Mapping[str, float]) -> Mapping[str, float] | Refusal:
    """Return the margins of the tables: those inside a derived table are read as far beyond it as it needs."""
    margins: dict[str, float] = {}
    for alias, margin in reached.items():
        if alias in inner:
            if margin > 0 and not _is_repeatable(block.relations[alias]):
                return Refusal(
                    reason=f"rows of the derived table {alias} that may differ from task to task are read in several of them"
                )
            margins |= {base: margin + more for base, more in inner[alias].margin_deg.items()}
        elif alias in block.relations and block.relations[alias].is_sharded:
            margins[alias] = margin
    return margins


def _is_repeatable(relation: Relation) -> bool:
    return relation.inner is None or relation.inner.is_repeatable


# -- the graph -------------------------------------------------------------------------------------------


Step = tuple[str, str, float, str]
"""(from, to, radius in degrees, scope)."""


def _reached(block: Block, inner: Mapping[str, Locality], start: Mapping[str, float]) -> Mapping[str, float]:
    return _shortest(_steps(block, inner), start, lambda near, far, scope: _holds_for(block, far, scope))


def _steps(block: Block, inner: Mapping[str, Locality]) -> list[Step]:
    """Return the edges in both directions. An edge that ends inside a derived table is longer by the margin of that table in it."""

    def depth(alias: str, base: str) -> float:
        return inner[alias].margin_deg.get(base, 0.0) if alias in inner and alias != base else 0.0

    steps: list[Step] = []
    for key in block.key_edges:
        steps.append((key.left, key.right, depth(key.left, key.left_base) + depth(key.right, key.right_base), key.scope))
    for sky in block.sky_edges:
        if sky.is_on_line:
            radius = sky.radius_deg + depth(sky.left, sky.left_base) + depth(sky.right, sky.right_base)
            steps.append((sky.left, sky.right, radius, sky.scope))
    steps += [(e.match, e.director, e.radius_deg, e.scope) for e in block.match_edges]
    lateral = {a for a, r in block.relations.items() if r.is_lateral}
    steps = [s for s in steps if not lateral & {s[0], s[1]}]
    return steps + [(right, left, radius, scope) for left, right, radius, scope in steps]


def _shortest(steps: list[Step], start: Mapping[str, float], is_usable: Callable[[str, str, str], bool]) -> Mapping[str, float]:
    """Return the least sum of radii from `start` to every relation that usable steps reach (Dijkstra over few vertices)."""
    settled: dict[str, float] = {}
    reached = dict(start)
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
    relation = block.relations.get(alias)
    if relation is None:
        return False
    return scope == alias if relation.is_null_supplied or relation.is_chosen else scope == ""
