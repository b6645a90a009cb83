"""A task gets only those keys of a long IN list whose rows can be in its cells.

Of `objectId IN (2,700 keys)` a task may be able to find 27, and parsing the others would cost it more than reading does. The index
has said in which cell each key is; a row that the task reads at home and whose key is in the list is one of those in its range.
So the list in a task's SQL may be any that has the keys of its range, and none of the rows is lost or added, whatever the term is
part of.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlglot import exp

from qengine.catalog.model import Int64Array
from qengine.plan import terms
from qengine.plan.cut import Leaf
from qengine.plan.logical import Lookup
from qengine.plan.prune import Resolved
from qengine.sql.lists import integers_of
from qengine.sql.trees import find


@dataclass(frozen=True, slots=True)
class KeyList:
    """A list as it stands in the fragment's SQL, and its keys in the order of their cells. Arrays have shape (keys,)."""

    text: str
    keys: NDArray[np.object_]
    cells: Int64Array

    def within(self, low: int, high: int) -> str:
        """Return the list of the keys in low <= cell < high; of another key where there is none."""
        first, last = np.searchsorted(self.cells, [low, high]).tolist()
        return ", ".join(map(str, self.keys[first:last])) or str(self.keys[0])


def key_lists(leaf: Leaf, select: exp.Select, at_home: Collection[str], resolved: Resolved, sql: str) -> tuple[KeyList, ...]:
    """Return the lists of `sql`, rendered from `select`, that tasks can shorten. `at_home` are the relations that a task reads in
    its own cells only."""
    return tuple(found for found in _lists(leaf, select, at_home, resolved) if sql.count(found.text) == 1)


def _lists(leaf: Leaf, select: exp.Select, at_home: Collection[str], resolved: Resolved) -> Iterator[KeyList]:
    for node in find(select, exp.In):
        values = integers_of(node.expressions[0]) if node.expressions else None
        place = terms.plain_column(node.this)
        snapshot = leaf.block.table_of(place[0]) if place is not None and place[0] in at_home else None
        if values is None or place is None or snapshot is None or snapshot.table.locality_key != place[1]:
            continue
        schema, _, director = snapshot.table.family.partition(".")
        keys = tuple(dict.fromkeys(values))
        cells = resolved.get(Lookup(schema=schema, table=director, values=keys))
        if cells is not None and len(cells) == len(keys):
            along = np.argsort(cells, kind="stable")
            yield KeyList(str(node.expressions[0].this), np.array(keys, object)[along], cells[along])
