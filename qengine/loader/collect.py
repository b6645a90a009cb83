"""Collecting garbage: files that only expired snapshots have, and their HATS trees; and the pointers to trees.

What an expired snapshot consisted of is forgotten when it expired long enough ago (queries that began before have ended by then,
and those that go on hold a lease), and what no other snapshot names is swept (`loader.leftovers`). A table at which a load is at
work is left for the next time. The tree of a table has the number of the snapshot that changed the table, as its manifest has.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from qengine.catalog.files import Files
from qengine.catalog.model import LAYOUT
from qengine.catalog.records import ManifestRef
from qengine.catalog.registry import Registry
from qengine.errors import ConflictError
from qengine.loader.leftovers import heal, sweep
from qengine.loader.publish import STAGED, exclusive
from qengine.storage.hats import write_collection

GRACE = timedelta(minutes=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What was removed: snapshots whose content is forgotten, files, HATS trees, bytes on disk; `busy` tables were left alone."""

    snapshots: tuple[int, ...] = ()
    files: int = 0
    trees: int = 0
    bytes: int = 0
    busy: tuple[str, ...] = ()

    def to_text(self) -> str:
        """Return it in words."""
        parts = [f"{self.files:,} files and {self.trees:,} HATS trees removed, {self.bytes / 1e6:,.1f} MB"]
        if self.snapshots:
            parts.append(f"snapshots {', '.join(map(str, self.snapshots))} are gone")
        if self.busy:
            parts.append(f"left alone while a load is at work: {', '.join(self.busy)}")
        return "; ".join(parts)


def collect(root: Path, registry: Registry, catalog: str, *, grace: timedelta = GRACE) -> Collected:
    """Remove what nobody can need any more from a catalogue. Raise `RegistryError` if there is none of this name."""
    gone = registry.releases.forget(catalog, older_than=grace)
    heal(root, registry, catalog)
    trees: dict[str, set[int]] = {}
    for manifest in registry.manifests(catalog):
        trees.setdefault(_table_of(manifest), set()).add(_number_of(manifest))
    before = taken_bytes(registry.files, root / catalog)
    files = removed = 0
    busy = []
    known = {root / catalog / manifest.table.removesuffix(LAYOUT) for manifest in registry.manifests(catalog)}
    here = {path for path in (root / catalog).glob("*") if path.is_dir() and not path.name.startswith("_")}
    for folder in sorted(known | here if registry.files.is_far else here):
        try:
            with exclusive(root, catalog, [folder.name]):
                removed += _remove_trees(folder, trees.get(folder.name.lower(), set()))
                files += sweep(root, registry, catalog, [folder.name])
        except ConflictError:
            busy.append(folder.name)
    freed = max(0, before - taken_bytes(registry.files, root / catalog))
    return Collected(snapshots=gone, files=files, trees=removed, bytes=freed, busy=tuple(busy))


def taken_bytes(files: Files, folder: Path) -> int:
    """Return the bytes of all files of a store below a folder: on the disk, or in the object store."""
    return sum(size for _, size in files.listed(folder)) if files.is_far else used_bytes(folder)


def used_bytes(folder: Path) -> int:
    """Return the bytes of all files below a folder, each file once however many links it has."""
    seen: dict[tuple[int, int], int] = {}
    for path in folder.rglob("*"):
        try:
            stat = path.stat()
        except FileNotFoundError:
            continue
        if path.is_file():
            seen[(stat.st_dev, stat.st_ino)] = stat.st_size
    return sum(seen.values())


def point_trees(root: Path, registry: Registry, catalog: str) -> None:
    """Point HATS readers to the trees of the latest snapshot, after it has become another one by rolling back."""
    for manifest in registry.latest_manifests(catalog):
        folder = root / catalog / manifest.table
        number = _number_of(manifest)
        if (folder / "snapshots" / str(number)).is_dir():
            with exclusive(root, catalog, [manifest.table]):
                margins = [f"snapshots/{path.name}" for path in sorted((folder / "snapshots").glob(f"{number}_*"))]
                write_collection(folder, name=f"{catalog}_{manifest.table}", primary=f"snapshots/{number}", margins=margins)


def _table_of(manifest: ManifestRef) -> str:
    return manifest.table.removesuffix(LAYOUT).lower()


def _number_of(manifest: ManifestRef) -> int:
    """Return the number of the snapshot that changed the table: the name of the manifest begins with it."""
    return int(Path(manifest.uri).name.split("-")[0])


def _remove_trees(folder: Path, kept: set[int]) -> int:
    removed = 0
    for tree in (folder / "snapshots").glob("*"):
        number = tree.name.split("_")[0]
        if not tree.name.startswith(STAGED) and number.isdigit() and int(number) not in kept:
            shutil.rmtree(tree, ignore_errors=True)
            removed += 1
    return removed
