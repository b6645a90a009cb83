"""The desk at which one table of a load is worked on: what is asked for, what there is, and where things are put.

`Work` comes from the change of the table, `Kept` is what stays of the snapshot before, `Made` what the work has come to. A `Desk`
holds what all steps of the work have in common; it does nothing itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from qengine.catalog.model import NO_PARTS, KeyIndex, PartRole, Parts, Table, TableKind, TableSnapshot
from qengine.loader import children, keys
from qengine.loader.definition import Definition
from qengine.loader.distribute import Shape, Tally
from qengine.loader.extent import Limits, limits
from qengine.loader.locate import Placement, Rows
from qengine.loader.partition import Targets, Tiles
from qengine.loader.request import LoadRequest, Progress
from qengine.loader.sources.source import Source
from qengine.loader.stored import StoredRows
from qengine.loader.write import Written
from qengine.sky.cells import RangeSet
from qengine.storage.objects import Store
from qengine.storage.parts import PartFormat


@dataclass(frozen=True, slots=True, kw_only=True)
class Follow:
    """Directors' rows that have come, gone or moved: their `keys` (sorted), and where children of them can be."""

    keys: pa.Array
    ranges: RangeSet


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is to be done to a table: besides the inputs, the inputs (`codes`, and the `ranges` of their rows) that go, the
    directors to follow, and whether ranges with several parts become one again."""

    request: LoadRequest
    sources: tuple[Source, ...]
    codes: pa.Array
    ranges: RangeSet
    follow: Follow | None = None
    is_compact: bool = False


@dataclass(slots=True)
class Kept:
    """What stays of the snapshot before: parts as they are, by role, and parts without the rows that went."""

    home: Parts = NO_PARTS
    orphan: Parts = NO_PARTS
    margin: Parts = NO_PARTS
    written: list[Written] = field(default_factory=list)
    gone: list[pa.Table] = field(default_factory=list)
    stored: list[Rows] = field(default_factory=list)
    index: KeyIndex | None = None

    @property
    def ranges(self) -> Tiles:
        """Return the ranges that parts have."""
        pairs = [np.stack([parts.start, parts.stop], axis=1) for parts in (self.home, self.orphan)] + [
            np.array([(one.start, one.stop) for one in self.written if one.role is not PartRole.MARGIN], np.int64).reshape(-1, 2)
        ]
        unique = np.unique(np.concatenate(pairs), axis=0)
        return Tiles(unique[:, 0], unique[:, 1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What has been made: what was kept, what was written, and what was counted. `changed` are directors' keys that came, went or
    moved, `ranges` where their rows were."""

    kept: Kept
    written: tuple[Written, ...]
    schema: pa.Schema
    tally: Tally
    targets: Targets
    key_index: KeyIndex | None = None
    placement: Placement | None = None
    changed: pa.Array | None = None
    ranges: RangeSet = field(default_factory=RangeSet.empty)


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What the steps of the work on one table, or on one layout of a match table, have in common.

    `folder` is where the table's files stay, `scratch` where things lie in between. `name` and `number` are those of the load.
    """

    work: Work
    definition: Definition
    store: Store
    scratch: Path
    name: str
    number: int
    progress: Progress
    limits: Limits
    shape: Shape

    @classmethod
    def of(
        cls, work: Work, definition: Definition, store: Store, scratch: Path, *, name: str, number: int, progress: Progress
    ) -> Desk:
        """Return the desk for a table."""
        wrapped = definition.table.ra if work.request.ra_wrap else ""
        return cls(
            work=work, definition=definition, store=store, scratch=scratch, name=name, number=number, progress=progress,
            limits=limits(work.request, work.sources, definition),
            shape=Shape(columns=definition.columns, load=number, wrapped=wrapped),
        )  # fmt: skip

    @property
    def request(self) -> LoadRequest:
        return self.work.request

    @property
    def table(self) -> Table:
        return self.definition.table

    @property
    def base(self) -> TableSnapshot | None:
        """Return the table as it was before, None if it is new or laid out anew as a whole."""
        return self.definition.previous if self.table.kind is not TableKind.MATCH else None

    @property
    def folder(self) -> Path:
        # both layouts of a match table lie in one folder
        return self.store.root / self.request.catalog / self.request.table

    @property
    def parts_folder(self) -> Path:
        return self.folder / "parts"

    @property
    def keys_folder(self) -> Path:
        return self.folder / "keys"

    @property
    def quarantine(self) -> Path:
        """Return the file for rows that are put aside."""
        return self.folder / "quarantine" / f"{self.name}.parquet"

    @property
    def is_director(self) -> bool:
        return self.table.kind is TableKind.DIRECTOR

    @property
    def is_keyed(self) -> bool:
        """Say whether the table has an index of unique keys."""
        return self.is_director and bool(self.table.key)

    @property
    def key_type(self) -> pa.DataType:
        """Return the type in which keys are compared."""
        return keys.key_type(self.definition.columns.field(self.table.key).type, self.table.key)

    @property
    def schema(self) -> pa.Schema:
        """Return the schema of parts."""
        own = self.shape.schema
        return own if self.definition.director is None else children.with_director_position(own)

    @property
    def form(self) -> PartFormat:
        return PartFormat(bloom=(self.table.key,) if self.table.key and not self.is_director else ())

    def stored(self, parts: Parts, files: tuple[Path, ...] = ()) -> StoredRows:
        """Return rows of the table that are there already, as a source."""
        name = f"rows of {self.table.full_name}"
        return StoredRows(name=name, schema=self.shape.schema, store=self.store, parts=parts, files=files)
