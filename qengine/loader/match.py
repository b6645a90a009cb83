"""Match tables: pairs of two directors' rows, stored twice, by the place of either.

Each layout is a child's: by left it lies where the left director lies, by right where the right one does, and each pair is in it
once. How far apart a pair's two places are is measured on the way, so that a query that reads one layout knows how far the other
director can be. Both places are cells of order 29, so the separation is that of their centres, and a little more for the cells.

A pair whose two places are not both known has no separation. It is counted instead: a query must not conclude from one place where
the other is (`qengine.catalog.model.Match`).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from qengine.catalog.model import LAYOUT, Catalog, Int64Array, KeyIndex, Match, Table, TableSnapshot
from qengine.catalog.pairs import places_of
from qengine.errors import ConfigError
from qengine.loader.children import find_director
from qengine.loader.key_cells import KeyCells
from qengine.loader.keys import cells_of_keys, to_keys
from qengine.loader.locate import ChildLocator, Placed
from qengine.loader.quality import Place
from qengine.sky.cells import LINE_END, ORDER
from qengine.sky.healpix import center_vectors, max_radius_deg
from qengine.storage.objects import Store

_MEASURED = ("largest_deg", "strays", "only_left", "only_right")
_TOLERANCE_DEG = 2 * max_radius_deg(ORDER) + 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One side of the pairs: its director, and the match table's column that holds the director's key."""

    director: TableSnapshot
    column: str


def read_side(catalog: Catalog, schema: str, text: str, option: str) -> Side:
    """Read `[CATALOG.]TABLE.COLUMN`: a director, and the column of the match table that holds its key."""
    words = text.split(".")
    if len(words) not in (2, 3) or not all(words):
        raise ConfigError(
            f"a match table needs {option} TABLE.COLUMN, not {text!r}",
            hint="the director, before it its catalogue if that is another one, and the column of the inputs with its keys",
        )
    director = find_director(catalog, words[0] if len(words) == 3 else schema, words[-2])
    if not director.table.ra:
        raise ConfigError(f"{director.table.full_name} does not lie on the sky, so pairs cannot be placed by it")
    return Side(director=director, column=words[-1])


def laid_out(table: Table, own: Side, other: Side, *, is_second: bool) -> Table:
    """Return the definition of the layout by `own`."""
    director = own.director.table
    match = Match(
        family=other.director.table.family, key=other.column, layout_of=table.name if is_second else "",
        own_places=_places(own, table), places=_places(other, table),
    )  # fmt: skip
    return replace(
        table, name=table.name + LAYOUT if is_second else table.name, family=director.family, director=director.name,
        director_key=own.column, match=match,
    )  # fmt: skip


def _places(side: Side, table: Table) -> str:
    # a director of the same catalogue is at the same snapshot, always
    return places_of(side.director) if side.director.table.schema != table.schema else ""


Places = tuple[Int64Array, NDArray[np.bool_]]
"""Cells of keys, and whether the keys are known."""


class Separation:
    """How far apart the places of pairs are, and how many have not two; filled by several threads. Of a table that is there already
    the largest distance stays what it was, if no pair is farther apart: a bound."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.largest_deg = 0.0
        self.strays = 0
        self.only_left = 0
        self.only_right = 0

    @classmethod
    def of(cls, previous: TableSnapshot | None, *, is_moved: bool = False) -> Separation:
        """Return what is known of the pairs of a table that is there already; nothing if a director `is_moved` without them."""
        found = cls()
        if not is_moved and previous is not None and previous.table.match is not None:
            first = previous.table.match
            found.largest_deg, found.strays, found.only_right = first.separation_deg, first.strays, first.orphans
            second = previous.other.table.match if previous.other is not None else None
            found.only_left = second.orphans if second is not None else 0
        return found

    def add(self, left: Places, right: Places, *, is_counted: bool = True) -> None:
        """Add pairs, given as (cells, whether the key is known) of either side; only their distance unless `is_counted`."""
        (left_cells, left_known), (right_cells, right_known) = left, right
        placed = left_known & right_known & (left_cells < LINE_END) & (right_cells < LINE_END)
        largest = 0.0
        if placed.any():
            one, two = center_vectors(ORDER, left_cells[placed]), center_vectors(ORDER, right_cells[placed])
            chord = float(np.sqrt(np.max(np.sum((one - two) ** 2, axis=1))))
            largest = float(np.degrees(2 * np.arcsin(min(1.0, chord / 2)))) + _TOLERANCE_DEG
        with self._lock:
            self.largest_deg = max(self.largest_deg, largest)
        if is_counted:
            self.count(left, right, 1)

    def count(self, left: Places, right: Places, sign: int) -> None:
        """Count pairs without two places, or discount them (`sign` -1)."""
        (left_cells, left_known), (right_cells, right_known) = left, right
        both = left_known & right_known
        placed = both & (left_cells < LINE_END) & (right_cells < LINE_END)
        with self._lock:
            self.strays += sign * int(both.sum() - placed.sum())
            self.only_left += sign * int((left_known & ~right_known).sum())
            self.only_right += sign * int((right_known & ~left_known).sum())

    def __getstate__(self) -> dict[str, Any]:
        return self.words()

    def __setstate__(self, words: Mapping[str, Any]) -> None:
        self._lock = threading.Lock()
        self.restore(words)

    def merge(self, words: Mapping[str, Any]) -> None:
        """Add what was measured of other pairs, as `words` gave it."""
        with self._lock:
            self.largest_deg = max(self.largest_deg, words["largest_deg"])
            for name in _MEASURED[1:]:
                setattr(self, name, getattr(self, name) + words[name])

    def words(self) -> dict[str, Any]:
        """Return what was measured so far as JSON values."""
        return {name: getattr(self, name) for name in _MEASURED}

    def restore(self, words: Mapping[str, Any]) -> None:
        """Go on from what `words` gave."""
        for name in _MEASURED:
            setattr(self, name, words[name])

    def measured(self, table: Table) -> Table:
        """Return the layout's definition with what was measured."""
        if table.match is None:
            return table
        orphans = self.only_left if table.match.layout_of else self.only_right
        return replace(
            table, match=replace(table.match, separation_deg=self.largest_deg, strays=self.strays, orphans=orphans)
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchLocator:
    """Places pairs by the left director, as children, and measures how far the right one is."""

    left: ChildLocator
    right_key: str
    rights: KeyCells
    separation: Separation

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.left.columns, self.right_key)))

    def place(self, rows: pa.RecordBatch, place: Place) -> Placed:
        left_keys = to_keys(rows.column(self.left.director_key), self.left.director_key)
        right_keys = to_keys(rows.column(self.right_key), self.right_key)
        self.separation.add(self.left.directors.cells(left_keys), self.rights.cells(right_keys))
        return self.left.place(rows, place)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairing:
    """What a layout of a match table needs to know to follow its directors: their key indexes, as they were before the load and as
    they are now, by the layout's own side and by the other, and the column with the other side's keys.

    A pair whose two directors change in one load is counted in two steps, first with the old place of the right one. If a director
    of another catalogue has changed without the pairs, what they were counted by is not known any more: then `is_whole`, and all
    that stay are counted from nothing, as they pass in the first layout.
    """

    own_before: KeyIndex | None
    own_now: KeyIndex | None
    other_before: KeyIndex | None
    other_now: KeyIndex | None
    other_key: str
    is_second: bool
    separation: Separation
    is_whole: bool = False

    def leave(self, rows: pa.Table, own_key: str, store: Store) -> None:
        """Discount pairs that go for good."""
        if not self.is_second and not self.is_whole:
            self._count(self._places(rows, own_key, self.own_before, store), self._others(rows, self.other_before, store), -1)

    def stay(self, rows: pa.Table, own_key: str, store: Store) -> None:
        """Count pairs that stay, wherever, if all are counted anew."""
        if self.is_whole and not self.is_second:
            self.separation.add(self._places(rows, own_key, self.own_now, store), self._others(rows, self.other_now, store))

    def follow(self, rows: pa.Table, own_key: str, store: Store) -> None:
        """Count pairs anew whose own director has changed."""
        if self.is_whole:
            return
        before, now = (self._places(rows, own_key, index, store) for index in (self.own_before, self.own_now))
        others = self._others(rows, self.other_now if self.is_second else self.other_before, store)
        self._count(before, others, -1)
        self._count(now, others, 1)
        self.separation.add(now, self._others(rows, self.other_now, store), is_counted=False)

    def _count(self, own: Places, other: Places, sign: int) -> None:
        left, right = (other, own) if self.is_second else (own, other)
        self.separation.count(left, right, sign)

    def _others(self, rows: pa.Table, index: KeyIndex | None, store: Store) -> Places:
        return self._places(rows, self.other_key, index, store)

    def _places(self, rows: pa.Table, column: str, index: KeyIndex | None, store: Store) -> Places:
        return cells_of_keys(index, store, to_keys(rows.column(column).combine_chunks(), column))
