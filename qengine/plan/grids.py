"""Put the distance joins of blocks inside a leaf on grids: those of derived tables and sub-queries.

`plan.skyjoin` says how one block's distance joins become equi-joins. A leaf may have blocks inside blocks; each has its own edges
and gets its own grids. A distance between a sub-query's relation and a relation outside of it is no join yet; it is left as it is.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlglot import exp

from qengine.plan import terms
from qengine.plan.cut import pushable_terms
from qengine.plan.logical import Block
from qengine.plan.skyjoin import grid_edges, grid_join
from qengine.sql.trees import copy_tree, find


def with_inner_grids(select: exp.Select, block: Block) -> tuple[exp.Select, int]:
    """Return a SELECT with the same rows in which the distance joins of blocks inside it are on grids, and their number."""
    # Aliases are unique in the whole statement, so they tell which block a SELECT is, wherever splitting has put it.
    blocks = {tuple(b.relations): (b, edges) for b in _inside(block) if (edges := grid_edges(b, ""))}
    if not blocks:
        return select, 0
    count = 0
    select = copy_tree(select)
    for query in reversed(find(select, exp.Select)):
        found = blocks.get(tuple(item.alias_or_name for item, _ in terms.from_items(query)))
        if found is not None and query is not select:
            inner, edges = found
            pushed = {alias: pushable_terms(inner, alias) for e in edges for alias in (e.home, e.expanded)}
            query.replace(grid_join(query, edges, pushed))
            count += len(edges)
    return select, count


def _inside(block: Block) -> Iterator[Block]:
    for found in block.inside():
        yield found
        yield from _inside(found)
