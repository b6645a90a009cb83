"""Parts taken out and put together are the parts that they were."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qengine.catalog.joining import join_parts, take_parts
from qengine.catalog.model import NO_PARTS
from tests.unit.catalog.snapshots import assert_same_parts, parts


@given(st.sets(st.integers(0, 19)), st.integers(0, 3))
def test_taking_and_joining_gives_the_parts_again(chosen: set[int], seed: int) -> None:
    whole = parts(20, seed=seed)
    first = take_parts(whole, np.array(sorted(chosen), np.int64))
    second = take_parts(whole, np.array(sorted(set(range(20)) - chosen), np.int64))
    assert len(first) == len(chosen)
    joined = join_parts([second, NO_PARTS, first])
    assert_same_parts(joined, whole)
    assert joined.row_groups.offset[-1] == len(joined.row_groups.rows)


def test_statistics_of_other_columns_and_types_are_not_known() -> None:
    one, two = parts(3, seed=1), parts(2, seed=9)
    reduced = {name: stats for name, stats in two.stats.items() if name != "name"}
    joined = join_parts([one, type(two)(**{f: getattr(two, f) for f in two.__slots__ if f != "stats"}, stats=reduced)])
    assert sorted(joined.stats) == ["id", "name", "ra"]
    assert joined.stats["name"].is_known.sum() == one.stats["name"].is_known.sum()
    with pytest.raises(KeyError):
        joined.stats["nothing"]
    assert join_parts([]) is NO_PARTS
