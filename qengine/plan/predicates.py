"""Where each predicate of a leaf goes, for EXPLAIN.

Every predicate that a leaf gets is tested there on the rows. Some of them do more: a region or the values of a key leave out tiles,
a range leaves out parts and row groups by their statistics, an equality of keys or a distance is what the leaf joins by. Predicates
are named by their places in the text of the statement; those that the planner adds (boxes around circles) are not listed.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlglot import exp

from qengine.catalog.model import TableSnapshot
from qengine.errors import Span
from qengine.plan import terms
from qengine.plan.cut import Leaf
from qengine.plan.logical import Block, Conjunct, KeyFact, RegionFact, Tree
from qengine.plan.regions import region_of
from qengine.plan.value_terms import test_of
from qengine.plan.values import columns_of

TESTED = "tested on rows"


@dataclass(frozen=True, slots=True)
class Predicate:
    """A term of the statement, and what the leaf does with it."""

    span: Span
    use: str


def predicates_of(leaf: Leaf) -> tuple[Predicate, ...]:
    """Return the leaf's predicates in the order of the statement."""
    facts = [restriction.fact for restriction in leaf.restrictions]
    has_region = any(isinstance(fact, RegionFact) and fact.is_on_line for fact in facts)
    keyed = {fact.alias for fact in facts if isinstance(fact, KeyFact)}
    found = {}
    for block in _blocks(leaf.block):
        for conjunct in block.conjuncts:
            span = conjunct.node.meta.get("span")
            if isinstance(span, Span):
                found[span.start] = Predicate(span, _use(conjunct, block, has_region=has_region, keyed=keyed))
    return tuple(found[start] for start in sorted(found))


def final_predicates(tree: Tree, tested: Collection[Span]) -> tuple[Span, ...]:
    """Return the places of terms of a statement that are not among those that leaves have tested."""
    before = {span.start for span in tested}
    found: dict[int, Span] = {}
    for select in tree.find_all(exp.Select):
        conditions = [select.args[name].this for name in ("where", "having", "qualify") if select.args.get(name) is not None]
        conditions += [join.args["on"] for join in select.args.get("joins") or () if join.args.get("on") is not None]
        for condition in conditions:
            for term in terms.conjuncts(condition):
                span = term.meta.get("span")
                if isinstance(span, Span) and span.start not in before:
                    found[span.start] = span
    return tuple(found[start] for start in sorted(found))


def _blocks(block: Block) -> list[Block]:
    """The block, and those inside it that run in the same leaf."""
    inner = [relation.inner for relation in block.relations.values() if relation.inner is not None]
    inner += [nested.block for nested in block.nested if nested.block is not None]
    return [block, *(found for one in inner for found in _blocks(one))]


def _use(conjunct: Conjunct, block: Block, *, has_region: bool, keyed: set[str]) -> str:
    for edge in block.sky_edges:
        if edge.node is conjunct.node:
            return f"joined by distance, margin of {round(edge.radius_deg * 3600, 6):g} arcsec"
    if len(conjunct.aliases) != 1:
        return "joined by key" if block.key_edges and isinstance(terms.bare(conjunct.node), exp.EQ) else TESTED
    (alias,) = conjunct.aliases
    table = block.table_of(alias)
    if conjunct.scope or table is None or table.inline is not None or not table.table.is_sharded:
        return TESTED
    if region_of(conjunct.node, alias, table.table) is not None:
        return "prunes tiles" if has_region else "prunes parts by statistics"
    if alias in keyed and _names_key(conjunct.node, table):
        return "prunes tiles by the key's index"
    test = test_of(conjunct.node, alias, table.table)
    if test is not None and any(_has_statistics(table, column) for column in columns_of(test)):
        return "prunes parts by statistics"
    return TESTED


def _names_key(node: exp.Expr, table: TableSnapshot) -> bool:
    keys = {table.table.key, table.table.director_key} - {""}
    return any(column.name in keys for column in node.find_all(exp.Column))


def _has_statistics(table: TableSnapshot, column: str) -> bool:
    return any(column in parts.stats for parts in (table.home, table.orphan))
