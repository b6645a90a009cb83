"""How often a task goes through relations that nothing ties to the others.

Relations that an equality or a distance ties to another one are joined by hashes or pixels. Where there is none, each row of the
one meets each row of the other, and that decides what the statement costs, however few bytes it reads.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlglot import exp

from qengine.plan import terms
from qengine.plan.logical import Block
from qengine.sql.trees import find

MOST_PAIRS = 1e15
"""More pairs than this are not told from one another: months of work."""


def loops(block: Block, rows: Mapping[str, int]) -> float:
    """Return how many combinations of rows of the relations in `rows` (alias -> how many it has) each row of the others meets."""
    found = 1.0
    for alias, count in rows.items():
        if alias in block.relations and not _is_tied(block, alias):
            found *= max(count, 1)
    return min(found, MOST_PAIRS)


def _is_tied(block: Block, alias: str) -> bool:
    if any(alias in (edge.left, edge.right) for edge in block.sky_edges):
        return True
    for conjunct in block.conjuncts:
        node = terms.bare(conjunct.node)
        if isinstance(node, exp.EQ) and alias in conjunct.aliases:
            sides = [{column.table for column in find(side, exp.Column)} for side in (node.this, node.expression)]
            if all(sides) and {alias} in sides and sides[0] != sides[1]:
                return True
    return False
