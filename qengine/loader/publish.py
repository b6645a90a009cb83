"""From written parts to a published snapshot.

1. The parts become one `TableSnapshot`, with the statistics of their footers.
2. Its HATS tree is drafted where nobody looks (`snapshots/.staged-...`): all but the links to parts.
3. The registry publishes the manifest in one transaction: from here on queries see the table.
4. The tree gets its links, which take seconds when there are a hundred thousand of them; then it takes its name, and
   `collection.properties` points to it: from here on HATS readers see the table.

A load that dies before step 3 leaves files that nothing refers to (`loader.leftovers`). One that dies between 3 and 4 has
published: queries see the table, and its HATS tree is made ready when it is resumed, or when the next load of the catalogue
begins.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from qengine.catalog.durable import sync_directory
from qengine.catalog.model import Int64Array, PartRole, Table, TableKind
from qengine.loader.children import DIRECTOR_DEC, DIRECTOR_RA
from qengine.loader.journal import held
from qengine.loader.partition import Tiles
from qengine.loader.write import Written
from qengine.sky.cells import LINE_END, ORDER
from qengine.sky.healpix import read_map
from qengine.storage.hats import SKYMAP, Leaf, catalogue_properties, draft_tree, fill_tree, write_collection

STAGED = ".staged-"
LOCK = ".load.lock"

_MAP_ORDERS = (4, 8)
_CHUNK = 1 << 22


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """The HATS tree of a table before it has its name: `primary` and, if there are margins, `margin` are folders."""

    table: str
    snapshots: Path
    primary: Path
    margin: Path | None
    margin_arcsec: float
    name: str

    def to_json(self, root: Path) -> dict[str, Any]:
        """Return it as JSON values, with paths relative to the store."""
        places = {"snapshots": self.snapshots, "primary": self.primary, "margin": self.margin}
        found = {name: path and path.relative_to(root).as_posix() for name, path in places.items()}
        return {"table": self.table, "margin_arcsec": self.margin_arcsec, "name": self.name, **found}

    @classmethod
    def from_json(cls, words: Mapping[str, Any], root: Path) -> Tree:
        """Return the tree that `to_json` wrote."""
        return cls(
            table=words["table"], snapshots=root / words["snapshots"], primary=root / words["primary"],
            margin=root / words["margin"] if words["margin"] else None, margin_arcsec=words["margin_arcsec"], name=words["name"],
        )  # fmt: skip

    def discard(self) -> None:
        """Remove the tree: its snapshot was not published."""
        for folder in (self.primary, self.margin):
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)


def table_folder(root: Path, table: Table) -> Path:
    """Return where everything of a table lies in the store."""
    return root / table.schema / table.name


def stage_tree(
    root: Path, table: Table, written: Sequence[Written], *, schema: pa.Schema, tiles: Tiles, margin_arcsec: float, load: str,
    counts: Int64Array, facts: Mapping[str, str],
) -> Tree:  # fmt: skip
    """Draft the HATS tree of the parts out of sight and return it. `counts` are rows per pixel of the map; `facts` further
    properties."""
    snapshots = table_folder(root, table) / "snapshots"
    snapshots.mkdir(parents=True, exist_ok=True)
    name = f"{table.schema}_{table.name}"
    is_child = table.kind in (TableKind.CHILD, TableKind.MATCH)
    home = _leaves([part for part in written if part.role is PartRole.HOME], tiles)
    ra, dec = (DIRECTOR_RA, DIRECTOR_DEC) if is_child else (table.ra, table.dec)
    common: dict[str, Any] = {"ra": ra, "dec": dec, "schema": schema, "builder": f"qengine {version('qengine')}", "created": _now()}
    properties = catalogue_properties(name=name, product="source" if is_child else "object", leaves=home, **common) | dict(facts)
    if table.epoch is not None:
        properties["hats_coordinate_epoch"] = f"J{table.epoch}"
    primary = snapshots / f"{STAGED}{load}"
    for dead in (primary, snapshots / f"{STAGED}{load}-margin"):
        shutil.rmtree(dead, ignore_errors=True)
    draft_tree(primary, home, schema, root=root, properties=properties, point_map=counts)
    edges = _leaves([part for part in written if part.role is PartRole.MARGIN], tiles)
    margin = None
    if edges:
        margin = snapshots / f"{STAGED}{load}-margin"
        about = {"hats_margin_threshold": f"{margin_arcsec:g}", "hats_primary_table_url": name}
        named = catalogue_properties(name=f"{name}_margin", product="margin", leaves=edges, **common) | about
        draft_tree(margin, edges, schema, root=root, properties=named)
    return Tree(table=table.full_name, snapshots=snapshots, primary=primary, margin=margin, margin_arcsec=margin_arcsec, name=name)


def reveal_tree(tree: Tree, number: int, root: Path) -> None:
    """Make the links of the tree of snapshot `number`, give it its name and point the collection to it.

    What was done already is not done again.
    """
    for folder in (tree.primary, tree.margin):
        if folder is not None:
            fill_tree(folder, root)
    margins = []
    if tree.margin is not None:
        name = f"{number}_{tree.margin_arcsec:g}arcs"
        _rename(tree.margin, tree.snapshots / name)
        margins.append(f"snapshots/{name}")
    _rename(tree.primary, tree.snapshots / str(number))
    sync_directory(tree.snapshots)
    for dead in tree.snapshots.parent.glob(".collection.properties.*"):
        dead.unlink()  # of a process that died while it wrote; this one holds the table
    write_collection(tree.snapshots.parent, name=tree.name, primary=f"snapshots/{number}", margins=margins)


@contextmanager
def exclusive(
    root: Path, catalog: str, tables: Sequence[str], *, wait_s: float = 0.0, waiting: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Hold tables against other loads. Raise `ConflictError` if another load is at work on one of them for longer than `wait_s`.

    Locks are taken by order of names, so that loads do not wait for each other in a circle; they die with the process.
    """
    with ExitStack() as stack:
        for table in sorted(tables):
            folder = root / catalog / table
            folder.mkdir(parents=True, exist_ok=True)
            message = f"another load of {catalog}.{table} is running"
            tell = partial(waiting, message) if waiting is not None else None
            stack.enter_context(held(folder / LOCK, wait_s=wait_s, message=message, waiting=tell))
        yield


def map_order(rows: int) -> int:
    """Return the order of the sky map of a table: as fine as its rows can fill, between 4 (3.7 degrees) and 8 (14 arcmin)."""
    return next((each for each in range(_MAP_ORDERS[1], _MAP_ORDERS[0], -1) if rows >= 12 * 4**each), _MAP_ORDERS[0])


def pixel_counts(cells: Int64Array, order: int) -> Int64Array:
    """Return rows per pixel of the full-sky map, from the cells of all rows (any order; those off the sky do not count)."""
    counts = np.zeros(12 * 4**order, np.int64)
    for first in range(0, len(cells), _CHUNK):
        chunk = np.asarray(cells[first : first + _CHUNK])
        np.add.at(counts, chunk[(chunk >= 0) & (chunk < LINE_END)] >> 2 * (ORDER - order), 1)
    return counts


def read_counts(tree: Path, order: int) -> Int64Array | None:
    """Return the map of a tree in an order, None if there is no tree, or no map that is as fine."""
    path = tree / SKYMAP
    if not path.is_file():
        return None
    counts = read_map(str(path)).astype(np.int64)
    pixels = 12 * 4**order
    return counts.reshape(pixels, -1).sum(axis=1) if len(counts) >= pixels else None


def _leaves(parts: Sequence[Written], tiles: Tiles) -> list[Leaf]:
    orders, indexes = tiles.orders, tiles.indexes
    by_tile: dict[int, list[Written]] = {}
    on_sky = [part for part in parts if part.start < LINE_END]
    at = np.searchsorted(tiles.start, np.array([part.start for part in on_sky], np.int64), "right") - 1
    for tile, part in zip(at.tolist(), on_sky, strict=True):
        by_tile.setdefault(tile, []).append(part)
    return [
        Leaf(
            order=int(orders[tile]),
            index=int(indexes[tile]),
            parts=tuple(part.file.path for part in found),
            rows=sum(part.file.rows for part in found),
            bytes=sum(part.file.bytes for part in found),
        )
        for tile, found in sorted(by_tile.items())
    ]


def _rename(source: Path, target: Path) -> None:
    if not source.is_dir():
        return  # a process that died has done it
    # a tree of this number can only be left from a registry that was rebuilt or moved
    shutil.rmtree(target, ignore_errors=True)
    os.rename(source, target)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%MUTC")
