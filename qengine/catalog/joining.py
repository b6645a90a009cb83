"""Parts of a snapshot taken out, put together and aligned: what a load carries over from the snapshot before.

All of it is arithmetic on columns; a hundred thousand parts are as quick as ten. Statistics are joined when somebody asks for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qengine.catalog.model import NO_PARTS, ColumnStats, Int64Array, Parts, RowGroups

_NUMBERS = ("rows", "bytes", "start", "stop", "lowest", "highest")
_GROUPS = ("lowest", "highest", "rows", "bytes")


def take_parts(parts: Parts, chosen: Int64Array) -> Parts:
    """Return the parts at these indexes, in the order of the indexes."""
    if len(chosen) == len(parts) and (chosen == np.arange(len(parts))).all():
        return parts
    if not len(chosen):
        return NO_PARTS
    offset = parts.row_groups.offset
    counts = np.diff(offset)[chosen]
    ends = np.cumsum(counts)
    groups = np.repeat(offset[chosen] - (ends - counts), counts) + np.arange(int(ends[-1]))
    where = pa.array(chosen)
    return Parts(
        digest=parts.digest.take(where),
        uri=parts.uri.take(where),
        **{name: getattr(parts, name)[chosen] for name in _NUMBERS},
        row_groups=RowGroups(
            np.concatenate([[0], ends]).astype(np.int64), *(getattr(parts.row_groups, name)[groups] for name in _GROUPS)
        ),
        stats=_Lazy(list(parts.stats), lambda name: _taken(parts.stats[name], chosen)),
    )


def join_parts(several: Sequence[Parts]) -> Parts:
    """Return the parts of all, sorted by start, then digest."""
    given = [parts for parts in several if len(parts)]
    if len(given) < 2:
        return given[0] if given else NO_PARTS
    counts = [len(parts) for parts in given]
    groups = [parts.row_groups for parts in given]
    sizes = np.concatenate([np.diff(group.offset) for group in groups])
    names = list(dict.fromkeys(name for parts in given for name in parts.stats))
    joined = Parts(
        digest=pa.concat_arrays([parts.digest for parts in given]),
        uri=pa.concat_arrays([parts.uri for parts in given]),
        **{name: np.concatenate([getattr(parts, name) for parts in given]) for name in _NUMBERS},
        row_groups=RowGroups(
            np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
            *(np.concatenate([getattr(group, name) for group in groups]) for name in _GROUPS),
        ),
        stats=_Lazy(names, lambda name: _concatenated(aligned([parts.stats.get(name) for parts in given], counts))),
    )
    order = np.lexsort((pc.rank(joined.digest).to_numpy(), joined.start))
    return take_parts(joined, order)


def aligned(found: Sequence[ColumnStats | None], counts: Sequence[int]) -> list[ColumnStats]:
    """Return statistics of one column as they can stand in one array: those that are missing, or whose values are of another type
    (where nothing is known there is none), become "not known"."""
    given = [stats for stats in found if stats is not None]
    dtype = next((stats.minimum.dtype for stats in given if stats.is_known.any()), given[0].minimum.dtype)
    return [_as(dtype, stats, count) for stats, count in zip(found, counts, strict=True)]


def _as(dtype: np.dtype[Any], stats: ColumnStats | None, count: int) -> ColumnStats:
    if stats is not None and stats.minimum.dtype == dtype:
        return stats
    empty = np.full(count, None, np.object_) if dtype == np.object_ else np.zeros(count, dtype)
    nulls = np.full(count, -1, np.int64) if stats is None else stats.nulls
    return ColumnStats(empty, empty, nulls, np.zeros(count, np.bool_))


class _Lazy(Mapping[str, ColumnStats]):
    """Statistics that are made when they are asked for, and then kept."""

    def __init__(self, names: Sequence[str], make: Callable[[str], ColumnStats]) -> None:
        self._names = dict.fromkeys(names)
        self._make = make
        self._made: dict[str, ColumnStats] = {}

    def __getitem__(self, name: str) -> ColumnStats:
        if name not in self._names:
            raise KeyError(name)
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names


def _taken(stats: ColumnStats, chosen: Int64Array) -> ColumnStats:
    exact = None if stats.is_exact is None else stats.is_exact[chosen]
    return ColumnStats(stats.minimum[chosen], stats.maximum[chosen], stats.nulls[chosen], stats.is_known[chosen], exact)


def _concatenated(several: Sequence[ColumnStats]) -> ColumnStats:
    return ColumnStats(
        np.concatenate([stats.minimum for stats in several]), np.concatenate([stats.maximum for stats in several]),
        np.concatenate([stats.nulls for stats in several]), np.concatenate([stats.is_known for stats in several]),
        np.concatenate([np.zeros(len(s.nulls), np.bool_) if s.is_exact is None else s.is_exact for s in several]),
    )  # fmt: skip
