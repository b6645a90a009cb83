"""The desk at which one table of a load is worked on: what is asked for, what there is, and where things are put.

`Work` comes from the change of the table, `Kept` is what stays of the snapshot before, `Made` what the work has come to. A `Desk`
holds what all steps of the work have in common; it does nothing itself.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from qengine.catalog.model import KeyIndex, Parts, Table, TableKind, TableSnapshot
from qengine.loader import children, keys
from qengine.loader.definition import Definition
from qengine.loader.distribute import Shape, Tally
from qengine.loader.executor import Executor
from qengine.loader.extent import Limits, limits
from qengine.loader.kept import Kept
from qengine.loader.locate import Placement
from qengine.loader.match import Pairing
from qengine.loader.partition import Targets
from qengine.loader.request import LoadRequest, Progress
from qengine.loader.sources.source import Source
from qengine.loader.stored import StoredRows
from qengine.loader.write import Written
from qengine.sky.cells import RangeSet
from qengine.storage.objects import Store
from qengine.storage.parts import PartFormat
from qengine.transport.version import qengine_version


@dataclass(frozen=True, slots=True, kw_only=True)
class Follow:
    """Directors' rows that have changed: the `keys` of those that went (sorted), which may have come again, and the `ranges` where
    they were; and whether any came, so that there can be orphans of them. If all rows may have moved, as nobody has said what
    became of the director (`is_whole`), each row's place is looked up."""

    keys: pa.Array
    ranges: RangeSet
    has_come: bool
    is_whole: bool = False

    @classmethod
    def whole(cls, known: Follow | None, arrow: pa.DataType) -> Follow:
        """Return that every row may have moved, with what is `known` of keys that went."""
        gone = known.keys if known is not None else pa.array([], arrow)
        return cls(keys=gone, ranges=RangeSet.whole(), has_come=True, is_whole=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is to be done to a table: besides the inputs, the inputs (`codes`, and the `ranges` of their rows) that go, the
    directors to follow, and whether ranges with several parts become one again. `pairing` is what a match table has to know of
    its directors."""

    request: LoadRequest
    sources: tuple[Source, ...]
    codes: pa.Array
    ranges: RangeSet
    follow: Follow | None = None
    is_compact: bool = False
    pairing: Pairing | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What has been made: what was kept, what was written, and what was counted. `follow` is what the tables that lie
    where the rows lie have to follow."""

    kept: Kept
    written: tuple[Written, ...]
    schema: pa.Schema
    tally: Tally
    targets: Targets
    key_index: KeyIndex | None = None
    placement: Placement | None = None
    follow: Follow | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What the steps of the work on one table, or on one layout of a match table, have in common.

    `folder` is where the table's files stay, `scratch` where things lie in between. `name` and `number` are those of the load.
    Heavy tasks go to the `executor` if there is one.
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
    executor: Executor | None = None

    @classmethod
    def of(
        cls, work: Work, definition: Definition, store: Store, scratch: Path, *, name: str, number: int, progress: Progress,
        executor: Executor | None = None,
    ) -> Desk:  # fmt: skip
        """Return the desk for a table."""
        wrapped = definition.table.ra if work.request.ra_wrap else ""
        return cls(
            work=work, definition=definition, store=store, scratch=scratch, name=name, number=number, progress=progress,
            limits=limits(work.request, work.sources, definition),
            shape=Shape(columns=definition.columns, load=number, wrapped=wrapped), executor=executor,
        )  # fmt: skip

    @property
    def request(self) -> LoadRequest:
        return self.work.request

    @property
    def table(self) -> Table:
        return self.definition.table

    @property
    def base(self) -> TableSnapshot | None:
        """Return the table as it was before, None if it is new."""
        return self.definition.previous

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
    def mark(self) -> str:
        """Return what names all that the work depends on; work that was done for something else cannot go on."""
        director, base = self.definition.director, self.base
        follow, pairing = self.work.follow, self.work.pairing
        words = [
            qengine_version(), self.number, repr(self.limits), str(self.schema), json.dumps(self.request.to_json(), default=str),
            [[one.name, one.identity.bytes] for one in self.work.sources], self.work.codes.to_pylist(), self.work.is_compact,
            [] if director is None else [director.home.digest.to_pylist(), director.key_index and director.key_index.digest],
            [] if base is None else [parts.digest.to_pylist() for parts in (base.home, base.orphan, base.margin)],
            None if pairing is None or pairing.other_now is None else pairing.other_now.digest,
            None if follow is None else [len(follow.keys), follow.has_come, follow.is_whole, follow.ranges.starts.tolist()],
        ]  # fmt: skip
        return hashlib.sha256(repr(words).encode()).hexdigest()

    @property
    def is_director(self) -> bool:
        """Say whether rows have places of their own, by which tiles are made."""
        return self.table.kind in (TableKind.DIRECTOR, TableKind.SERIES)

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
        director = self.definition.director
        return own if director is None else children.with_director_position(own, director)

    @property
    def form(self) -> PartFormat:
        return PartFormat(bloom=(self.table.key,) if self.table.key and not self.is_director else ())

    def stored(self, parts: Parts, files: tuple[Path, ...] = ()) -> StoredRows:
        """Return rows of the table that are there already, as a source."""
        name = f"rows of {self.table.full_name}"
        return StoredRows(name=name, schema=self.shape.schema, store=self.store, parts=parts, files=files)
