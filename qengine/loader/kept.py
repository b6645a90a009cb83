"""What stays of a table that changes: which parts as they are, which without some of their rows, and what went.

It can be kept in a folder and taken from there by another process: masks over the parts of the base, a list of the parts that were
written, and files with keys and cells of the rows that are gone and with the rows that go to another place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from qengine.catalog.joining import take_parts
from qengine.catalog.model import NO_PARTS, KeyIndex, PartRole, Parts, TableSnapshot
from qengine.loader.partition import Tiles
from qengine.loader.write import Written
from qengine.storage.objects import Store
from qengine.storage.parts import PartFile, part_path

Mask = NDArray[np.bool_]

_GONE, _MOVED = "gone.arrow", "moved.arrow"


@dataclass(slots=True)
class Kept:
    """What stays of the snapshot `base`: the parts that `stays` says, and `written` ones. `taken` parts of home and orphans are
    written anew with the new rows, as are the rows in the file `moved`. Of the `gone_rows` that left for good, `gone` has cells,
    and keys if the table has an index of them; `index` is that of the keys that stay."""

    base: TableSnapshot | None = None
    stays: dict[PartRole, Mask] = field(default_factory=dict)
    taken: dict[PartRole, Mask] = field(default_factory=dict)
    written: list[Written] = field(default_factory=list)
    gone: pa.Table | None = None
    gone_rows: int = 0
    moved: Path | None = None
    index: KeyIndex | None = None

    @classmethod
    def all_of(cls, base: TableSnapshot) -> Kept:
        """Return that all of a snapshot stays."""
        stays = {role: np.ones(len(parts_of(base, role)), np.bool_) for role in PartRole}
        taken = {role: np.zeros(len(mask), np.bool_) for role, mask in stays.items()}
        return cls(base=base, stays=stays, taken=taken, index=base.key_index)

    def parts(self, role: PartRole) -> Parts:
        """Return the parts that stay as they are."""
        return self._chosen(role, self.stays)

    def rewritten(self, role: PartRole) -> Parts:
        """Return the parts whose rows are written anew."""
        return self._chosen(role, self.taken)

    def _chosen(self, role: PartRole, masks: Mapping[PartRole, Mask]) -> Parts:
        return NO_PARTS if self.base is None else take_parts(parts_of(self.base, role), np.flatnonzero(masks[role]))

    @property
    def ranges(self) -> Tiles:
        """Return the ranges that parts have."""
        pairs = [np.stack([parts.start, parts.stop], axis=1) for parts in (self.parts(PartRole.HOME), self.parts(PartRole.ORPHAN))]
        pairs.append(
            np.array([(one.start, one.stop) for one in self.written if one.role is not PartRole.MARGIN], np.int64).reshape(-1, 2)
        )
        unique = np.unique(np.concatenate(pairs), axis=0)
        return Tiles(unique[:, 0], unique[:, 1])

    def save(self, folder: Path) -> tuple[dict[str, Any], list[Path]]:
        """Return it as JSON values, and the files that belong to it: those in `folder`, which is where `moved` is."""
        files = []
        for name, masks in (("stays", self.stays), ("taken", self.taken)):
            for role, mask in masks.items():
                files.append(folder / f"{name}-{role.value}.npy")
                np.save(files[-1], mask)
        if self.gone is not None:
            with pa.OSFile(str(folder / _GONE), "wb") as out, pa.ipc.new_stream(out, self.gone.schema) as writer:
                writer.write_table(self.gone)
            files.append(folder / _GONE)
        if self.moved is not None:
            files.append(self.moved)
        index = None if self.index is None else index_words(self.index)
        words = {"written": [written_words(one) for one in self.written], "gone_rows": self.gone_rows, "index": index}
        return words, files

    @classmethod
    def restore(cls, words: Mapping[str, Any], folder: Path, base: TableSnapshot, store: Store, parts: Path) -> Kept:
        """Return what `save` has kept. `parts` is where the table's parts lie."""
        gone = None
        if (folder / _GONE).exists():
            with pa.OSFile(str(folder / _GONE)) as file, pa.ipc.open_stream(file) as reader:
                gone = reader.read_all()
        moved = folder / _MOVED
        return cls(
            base=base, stays={role: np.load(folder / f"stays-{role.value}.npy") for role in PartRole},
            taken={role: np.load(folder / f"taken-{role.value}.npy") for role in PartRole},
            written=[written_of(one, parts) for one in words["written"]], gone=gone, gone_rows=words["gone_rows"],
            moved=moved if moved.exists() else None, index=index_of(words["index"]),
        )  # fmt: skip


def moved_path(folder: Path) -> Path:
    """Return the file for rows that go to another place."""
    return folder / _MOVED


def parts_of(base: TableSnapshot, role: PartRole) -> Parts:
    """Return the parts of a role."""
    return {PartRole.HOME: base.home, PartRole.ORPHAN: base.orphan, PartRole.MARGIN: base.margin}[role]


def index_of(words: Mapping[str, Any] | None) -> KeyIndex | None:
    """Return the index of which these are the JSON values."""
    return None if words is None else KeyIndex(uri=tuple(words["uri"]), digest=tuple(words["digest"]), rows=words["rows"])


def index_words(index: KeyIndex) -> dict[str, Any]:
    """Return an index as JSON values."""
    return {"uri": index.uri, "digest": index.digest, "rows": index.rows}


def written_words(one: Written) -> list[Any]:
    """Return a written part as JSON values."""
    return [one.role.value, one.start, one.stop, one.file.digest, one.file.rows, one.file.bytes]


def written_of(words: Sequence[Any], folder: Path) -> Written:
    """Return the part of which these are the JSON values; parts lie in `folder`."""
    role, start, stop, digest, rows, size = words
    file = PartFile(digest=digest, path=part_path(folder, digest), rows=rows, bytes=size)
    return Written(role=PartRole(role), start=start, stop=stop, file=file)
