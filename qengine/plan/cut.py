"""Station 4: cut the statement into leaves and a final part.

Until here the query is ordinary SQL. Now every block that is provably leaf-local (`plan.locality`) is split (`plan.split`) and
replaced, in place, by the final SELECT over the rows of its leaf. A block that is not leaf-local stays in the final part; each
base table in its FROM is replaced by a *gathered* input: a leaf that reads the columns that the statement uses and the rows
that the block's own terms let through. Sub-queries, CTEs and operands of set operators are blocks of their own and are cut by
the same rule. What is left is a statement over relations r0, r1, ..: the final fragment. Distance joins that stay in it get a
grid there (`plan.skyjoin`).

Which terms may be pushed into a gathered input? A term that every output row fulfils and that names only this relation; for a
relation that comes by LEFT JOIN, a term of its own ON that names only it. The final part keeps all terms, so pushing is only an
economy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlglot import exp

from qengine.catalog.model import Catalog, TableSnapshot
from qengine.catalog.types import INTEGER
from qengine.errors import BugError
from qengine.plan import terms
from qengine.plan.dynamic import known_facts
from qengine.plan.lift import lift_block
from qengine.plan.locality import Locality, Refusal, distances, distances_inside, prove_locality
from qengine.plan.logical import Block, KeyFact, PlaceFact, RangeFact, RegionFact, ValueFact
from qengine.plan.nesting import holders
from qengine.plan.skyjoin import grid_edges, grid_join
from qengine.plan.split import Split, split, storable, typed
from qengine.sql.trees import copy_tree, find, nodes_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Restriction:
    """A fact about a relation whose rows are within `distance_deg` of the owner's rows."""

    fact: RegionFact | KeyFact | RangeFact | ValueFact | PlaceFact
    distance_deg: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """One leaf before pruning. `relation` is its name in the final part; `gathered` is the reason why it is only an input,
    empty for a block that runs whole in the leaf."""

    number: int
    relation: str
    split: Split
    block: Block
    locality: Locality
    restrictions: tuple[Restriction, ...]
    gathered: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CutQuery:
    """The statement in pieces. `final` reads the leaves' relations and `inline` tables by name; `is_passthrough` says that the
    rows of the only leaf are the answer as they come."""

    leaves: tuple[Leaf, ...]
    final: exp.Query
    inline: tuple[tuple[str, TableSnapshot], ...]
    is_passthrough: bool


def cut(tree: exp.Query, catalog: Catalog) -> CutQuery:
    """Cut a bound and optimized statement."""
    taken = {name.lower() for node in nodes_of(tree) if isinstance(node, (exp.Table, exp.TableAlias)) and (name := node.name)}
    work = _Cutting(
        catalog=catalog, leaves=[], inline=[], prefix=free_prefix("r", taken), inline_prefix=free_prefix("inline", taken)
    )
    final = work.visit(copy_tree(tree))
    is_passthrough = (
        len(work.leaves) == 1 and not work.inline and not work.leaves[0].gathered and work.leaves[0].split.is_trivial
        and final is work.leaves[0].split.final
    )  # fmt: skip
    return CutQuery(leaves=tuple(work.leaves), final=final, inline=tuple(work.inline), is_passthrough=is_passthrough)


@dataclass(slots=True)
class _Cutting:
    """The pieces found so far, in the order in which they were met. Relations of the final part are named `prefix` and a number."""

    catalog: Catalog
    leaves: list[Leaf]
    inline: list[tuple[str, TableSnapshot]]
    prefix: str
    inline_prefix: str

    def visit(self, query: exp.Query) -> exp.Query:
        """Return what stands for `query` in the final part."""
        if isinstance(query, exp.Select):
            block = lift_block(query, self.catalog)
            proof = prove_locality(block)
            if isinstance(proof, Locality) and block.outer:
                proof = Refusal(reason="the block refers to an outer block")
            if isinstance(proof, Locality) and _has_late_query(block, proof):
                proof = Refusal(reason="a sub-query stands where only the final part knows the rows")
            if isinstance(proof, Locality) and block.relations:
                return self._leaf(query, block, proof)
            reason = proof.reason if isinstance(proof, Refusal) else "the block reads no table"
            self._gather(query, block, reason)
            self._descend(query)
            edges = grid_edges(block, "")
            return grid_join(query, edges, {}) if edges else query
        self._descend(query)
        return query

    def _descend(self, node: exp.Expr) -> None:
        for child in list(node.iter_expressions()):
            if isinstance(child, (exp.Select, exp.SetOperation)):
                replacement = self.visit(child)
                if replacement is not child:
                    # DuckDB takes an operand that begins with WITH in parentheses only.
                    needs_parentheses = isinstance(node, exp.SetOperation) and replacement.args.get("with_") is not None
                    child.replace(replacement.subquery(copy=False) if needs_parentheses else replacement)
            else:
                self._descend(child)

    def _leaf(self, query: exp.Select, block: Block, proof: Locality) -> exp.Select:
        is_unique = all(g.kind != "DISTINCT" for g in proof.unfinished)
        parts = split(query, self._next(), is_complete=is_complete(proof), is_unique=is_unique)
        self._add(parts, block, proof, _restrictions(block, proof, self.catalog), gathered="")
        return parts.final

    def _gather(self, query: exp.Select, block: Block, reason: str) -> None:
        for item, _ in list(terms.from_items(query)):
            if not isinstance(item, exp.Table) or not item.db:
                continue
            alias = item.alias_or_name
            table = block.relations[alias].table
            if table is None:
                raise BugError(f"table {item.db}.{item.name} is bound but not in the catalogue")
            if table.inline is not None:
                name = f"{self.inline_prefix}{len(self.inline)}"
                self.inline.append((name, table))
            else:
                name = self._gather_table(query, block, item, reason)
            item.replace(terms.table_node(name, alias))

    def _gather_table(self, query: exp.Select, block: Block, item: exp.Table, reason: str) -> str:
        alias, name = item.alias_or_name, self._next()
        used: dict[str, exp.Expr] = {}
        for node in find(query.root(), exp.Column):
            if node.table == alias:
                used.setdefault(node.name, node)
        columns = tuple((column, storable(terms.sql_type(node))) for column, node in used.items()) or (("one", INTEGER),)
        items = [terms.aliased(typed(node, found), node.name) for node, (_, found) in zip(used.values(), columns, strict=False)]
        select = exp.Select(expressions=items or [terms.aliased(exp.Literal.number(1), "one")]).from_(copy_tree(item), copy=False)
        if (condition := terms.all_of(pushable_terms(block, alias))) is not None:
            select = select.where(condition, copy=False)
        own = lift_block(select, self.catalog)
        proof = prove_locality(own)
        if not isinstance(proof, Locality):
            raise BugError(f"a single table is not leaf-local: {proof.reason}")
        final = exp.Select(expressions=[exp.Star()]).from_(terms.table_node(name, name), copy=False)
        parts = Split(kind="gather", leaf=select, columns=columns, final=final, is_trivial=False, row_limit=None)
        restrictions: tuple[Restriction, ...] = ()
        if proof.owner:
            others = _restrictions_of(block, alias, {}, self.catalog, others_only=True)
            restrictions = (*_restrictions(own, proof, self.catalog), *others, *_known(block, alias, self.catalog))
        self._add(parts, own, proof, restrictions, gathered=reason)
        return name

    def _next(self) -> str:
        return f"{self.prefix}{len(self.leaves)}"

    def _add(self, parts: Split, block: Block, proof: Locality, restrictions: tuple[Restriction, ...], *, gathered: str) -> None:
        number, relation = len(self.leaves), self._next()
        self.leaves.append(
            Leaf(
                number=number, relation=relation, split=parts, block=block, locality=proof,
                restrictions=restrictions, gathered=gathered,
            )
        )  # fmt: skip


def free_prefix(wanted: str, taken: set[str]) -> str:
    """Return a prefix of relation names that no alias and no CTE of the statement looks like."""
    while any(name.startswith(wanted) and name[len(wanted) :].isdigit() for name in taken):
        wanted += "_"
    return wanted


def is_complete(proof: Locality) -> bool:
    """Say whether groups, windows and aggregates of the block are whole in the leaf (DISTINCT and LIMIT may need a final part)."""
    return all(g.kind in ("DISTINCT", "LIMIT") for g in proof.unfinished)


def _has_late_query(block: Block, proof: Locality) -> bool:
    return not is_complete(proof) and any(not nested.is_early for nested in block.nested)


def pushable_terms(block: Block, alias: str) -> list[exp.Expr]:
    """Return the terms that may be applied to the relation before it is joined (see the module's prose)."""
    relation = block.relations[alias]
    scope = alias if relation.is_null_supplied or relation.is_chosen else ""
    if relation.is_null_supplied and relation.side != "LEFT":
        return []
    return [c.node for c in block.conjuncts if c.scope == scope and c.aliases == {alias} and _is_repeatable(c.node)]


def _is_repeatable(node: exp.Expr) -> bool:
    """Say whether the term gives the same answer each time, and without another query."""
    return not any(isinstance(n, (exp.Query, exp.Window)) or terms.is_random(n) for n in nodes_of(node))


def _known(block: Block, alias: str, catalog: Catalog) -> tuple[Restriction, ...]:
    """Collect what relations whose rows are here say about a gathered one (through its own ON where a LEFT JOIN supplies it)."""
    relation = block.relations[alias]
    if relation.is_null_supplied and relation.side != "LEFT":
        return ()
    facts = known_facts(block, alias, catalog, scope=alias if relation.is_null_supplied else "")
    return tuple(Restriction(fact=fact, distance_deg=0.0) for fact in facts)


def _restrictions(block: Block, proof: Locality, catalog: Catalog) -> tuple[Restriction, ...]:
    """Collect the facts that restrict the rows of the proof's owner."""
    return _restrictions_of(block, proof.vertex, proof.inner, catalog) if proof.owner else ()


def _restrictions_of(
    block: Block, owner: str, inner: Mapping[str, Locality], catalog: Catalog, *, others_only: bool = False
) -> tuple[Restriction, ...]:
    """Collect the facts that restrict a relation's rows: its own, and those of relations tied to it by edges. Facts of a derived
    table are those of the block inside, and those about tables inside whose columns it puts out."""
    found = []
    for alias, distance in distances(block, owner, inner).items():
        if alias == owner and (others_only or block.relations[owner].is_null_supplied):
            continue
        proof = inner.get(alias)
        facts: list[RegionFact | KeyFact | RangeFact | ValueFact | PlaceFact] = [
            f for kind in (block.regions, block.keys, block.ranges, block.values) for f in kind if f.alias == alias
        ]
        facts += known_facts(block, alias, catalog, scope="")
        for fact in facts:
            base = "" if isinstance(fact, PlaceFact) else fact.base
            depth = proof.margin_deg.get(base, 0.0) if proof is not None else 0.0
            found.append(Restriction(fact=fact, distance_deg=distance + depth))
        within = block.relations[alias].inner
        if proof is not None and proof.owner and within is not None:
            found += [
                Restriction(fact=r.fact, distance_deg=distance + r.distance_deg)
                for r in _restrictions_of(within, proof.vertex, proof.inner, catalog)
            ]
    return (*found, *_of_sub_queries(block, owner, distances(block, owner, inner)))


def _of_sub_queries(block: Block, owner: str, near: Mapping[str, float]) -> list[Restriction]:
    """Collect the facts about tables in EXISTS and IN that every row fulfils: a row of theirs has to be near."""
    if block.relations[owner].is_null_supplied or block.relations[owner].is_chosen:
        return []
    start = {alias: distance for alias, distance in near.items() if block.relations[alias].table is not None}
    tests = {id(terms.bare(c.node)) for c in block.conjuncts if not c.scope}
    found: list[Restriction] = []
    for nested in block.nested:
        holder, inside = holders(nested.node), nested.block
        if inside is None or not isinstance(holder, (exp.Exists, exp.In)) or id(holder) not in tests:
            continue
        # Without rows, aggregates without groups (ROLLUP has a set of all) still make one.
        if any(g.kind in ("an aggregate", "LIMIT") or (g.kind == "GROUP BY" and not g.places) for g in inside.gatherings):
            continue
        for alias, distance in distances_inside(inside, start).items():
            facts = (f for kind in (inside.regions, inside.keys, inside.ranges, inside.values) for f in kind if f.alias == alias)
            found += [Restriction(fact=fact, distance_deg=distance) for fact in facts]
    return found
