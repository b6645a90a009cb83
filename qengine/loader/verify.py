"""Checking files against what was published, and fetching good copies of those that are not.

`restore_manifests` and `verify_files` read everything that a snapshot consists of: manifests, then parts and key indexes. A file
is right when its size and sha256 are those of the manifest; then its footer is compared with what the planner is told (rows, row
groups, their cells), and the cells of its rows with the range that it belongs to, so that a wrong manifest is found as well as a
wrong file. Attached files may have no digest; of these size, footer and cells are compared. Files that several layouts share are
read once.

*Repair.* A copy is a directory: another store, an export, a backup. It is searched for the file at the same URI, and for parts by
the beginning of their digest, which is their name in HATS trees too. Only bytes with the published sha256 are taken; they are
written beside the place and renamed, and links of the damaged file in HATS trees get the new one. Nothing is removed.

`verify_children` proves what joins by key rely on: a child's row lies in its director's cell, and orphans have no director.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qengine.catalog import durable
from qengine.catalog.model import HEALPIX, Catalog, PartRole, Parts, TableKind, TableSnapshot
from qengine.catalog.records import ManifestRef
from qengine.errors import ConfigError, IntegrityError
from qengine.loader import keys
from qengine.loader.key_cells import KeyCells
from qengine.loader.pool import in_order
from qengine.loader.request import Progress
from qengine.storage.hats import link_name
from qengine.storage.objects import Store

_BATCH_ROWS = 1 << 17
_THREADS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is wrong with a file, or with rows in it. `repaired` says that a good copy has taken its place."""

    table: str
    uri: str
    what: str
    repaired: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was read, and what was found wrong."""

    catalog: str
    snapshot: int
    files: int
    bytes: int
    rows: int
    faults: tuple[Fault, ...] = ()

    @property
    def is_sound(self) -> bool:
        return all(fault.repaired for fault in self.faults)

    def to_json(self) -> Mapping[str, Any]:
        """Return the report as plain values."""
        return {**asdict(self), "is_sound": self.is_sound}

    def to_text(self) -> str:
        """Return the report for people: a line for each fault, and a summary."""
        lines = [f"{f.table}: {f.uri}: {f.what}{' (repaired)' if f.repaired else ''}" for f in self.faults]
        left = sum(not fault.repaired for fault in self.faults)
        size = f"{self.files:,} files, {self.bytes / 1e6:,.1f} MB, {self.rows:,} rows"
        said = "as published" if not self.faults else f"{len(self.faults):,} faults, {left:,} left"
        return "\n".join([*lines, f"{self.catalog} at snapshot {self.snapshot}: {size}: {said}"])


@dataclass(frozen=True, slots=True)
class _File:
    """A file of the snapshot, and what is known of it. `parts` and `number` say where a part stands; None for a key index."""

    table: str
    uri: str
    digest: str
    role: PartRole | None = None
    parts: Parts | None = None
    number: int = 0
    line_column: str = HEALPIX


def verify_files(
    tables: Iterable[TableSnapshot],
    store: Store,
    *,
    catalog: str,
    snapshot: int,
    before: Iterable[Fault] = (),
    copy: Path | None = None,
    progress: Progress | None = None,
) -> Report:
    """Read every part and key index of these tables and return what is wrong, `before` (faults of manifests) first. With `copy`
    replace damaged and missing ones from there.

    Raise `ConfigError` if `copy` is not a directory.
    """
    copies = Copies(copy) if copy is not None else None
    found = list(_unique(file for table in tables for file in _files(table)))
    faults = list(before)
    size = rows = done = 0

    def work(file: _File) -> tuple[_File, str, int]:
        what = _fault(file, store)
        size = _size(store.place(file.uri))
        if file.parts is not None:
            store.let_go(file.uri)  # a snapshot may be larger than this machine's disk
        return file, what, size

    with ThreadPoolExecutor(_THREADS, "verify") as pool:
        for file, what, read in in_order(pool, work, found, ahead=2 * _THREADS):
            done, size = done + 1, size + read
            if what:
                is_mended = copies is not None and copies.restore(file.uri, file.digest, store) and not _fault(file, store)
                faults.append(Fault(table=file.table, uri=file.uri, what=what, repaired=is_mended))
            if file.parts is not None and file.role is not PartRole.MARGIN:
                rows += int(file.parts.rows[file.number])
            if progress is not None:
                progress("verify files", done, len(found))
    return Report(catalog=catalog, snapshot=snapshot, files=len(found), bytes=size, rows=rows, faults=tuple(faults))


def restore_manifests(manifests: Iterable[ManifestRef], store: Store, copy: Path | None) -> tuple[Fault, ...]:
    """Return what is wrong with manifests, before anybody can read them; with `copy`, replace them from there."""
    copies = Copies(copy) if copy is not None else None
    found = []
    for manifest in manifests:
        file = _File(manifest.table, manifest.uri, manifest.digest)
        if what := _bytes_fault(file, store):
            is_mended = copies is not None and copies.restore(file.uri, file.digest, store)
            found.append(Fault(table=manifest.table, uri=manifest.uri, what=what, repaired=is_mended))
    return tuple(found)


def _files(snapshot: TableSnapshot) -> Iterator[_File]:
    table = snapshot.table
    for role, parts in ((PartRole.HOME, snapshot.home), (PartRole.ORPHAN, snapshot.orphan), (PartRole.MARGIN, snapshot.margin)):
        for number, (uri, digest) in enumerate(zip(parts.uri.to_pylist(), parts.digest.to_pylist(), strict=True)):
            yield _File(table.full_name, uri, digest, role, parts, number, table.line_column if table.is_sharded else "")
    if snapshot.key_index is not None:
        for uri, digest in zip(snapshot.key_index.uri, snapshot.key_index.digest, strict=True):
            yield _File(table.full_name, uri, digest)
    if snapshot.other is not None:
        yield from _files(snapshot.other)


def _unique(files: Iterable[_File]) -> Iterator[_File]:
    seen: set[tuple[str, PartRole | None, int]] = set()
    for file in files:
        # Two tiles share a margin file when their surroundings are the same rows; each has a range of its own to be checked.
        start = int(file.parts.start[file.number]) if file.parts is not None else 0
        if (file.uri, file.role, start) not in seen:
            seen.add((file.uri, file.role, start))
            yield file


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _fault(file: _File, store: Store) -> str:
    return _bytes_fault(file, store) or (_content_fault(file, file.parts, store) if file.parts is not None else "")


def _bytes_fault(file: _File, store: Store) -> str:
    try:
        path = store.fresh(file.uri)
        size = path.stat().st_size
        if file.parts is not None and size != (published := int(file.parts.bytes[file.number])):
            return f"has {size:,} bytes, {published:,} were published"
        if file.digest and (found := durable.sha256(path)) != file.digest:
            return f"has the sha256 {found}, {file.digest} was published"
    except FileNotFoundError:
        return "is missing"
    except IntegrityError as error:
        return error.message
    except OSError as error:
        return f"cannot be read: {error}"
    return ""


def _content_fault(file: _File, parts: Parts, store: Store) -> str:
    """Compare footer and cells with the manifest."""
    number, groups = file.number, parts.row_groups
    try:
        with pq.ParquetFile(store.path(file.uri)) as read:
            if read.metadata.num_rows != parts.rows[number]:
                return f"has {read.metadata.num_rows:,} rows, {parts.rows[number]:,} were published"
            first, last = int(groups.offset[number]), int(groups.offset[number + 1])
            counts = [read.metadata.row_group(i).num_rows for i in range(read.metadata.num_row_groups)]
            if last > first and counts != groups.rows[first:last].tolist():
                return f"has row groups of {counts}, {groups.rows[first:last].tolist()} were published"
            if not file.line_column or file.line_column not in read.schema_arrow.names:
                return ""
            for i in range(read.metadata.num_row_groups):
                cells = read.read_row_group(i, columns=[file.line_column]).column(0).cast(pa.int64()).to_numpy()
                if what := _cells_fault(cells, file, parts, first + i if last > first else -1):
                    return f"row group {i}: {what}"
    except (OSError, pa.ArrowException) as error:
        return f"cannot be read: {error}"
    return ""


def _cells_fault(cells: np.ndarray[Any, np.dtype[np.int64]], file: _File, parts: Parts, group: int) -> str:
    if not len(cells):
        return ""
    start, stop = int(parts.start[file.number]), int(parts.stop[file.number])
    lowest, highest = int(cells.min()), int(cells.max())
    if file.role is PartRole.MARGIN:
        inside = int(((cells >= start) & (cells < stop)).sum())
        return f"{inside:,} rows lie in the tile itself" if inside else ""
    if lowest < start or highest >= stop:
        return f"rows lie in cells {lowest} to {highest}, outside of [{start}, {stop})"
    if group >= 0 and (lowest < parts.row_groups.lowest[group] or highest > parts.row_groups.highest[group]):
        return f"rows lie in cells {lowest} to {highest}, which the manifest does not say"
    return ""


# -- repair ------------------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Copies:
    """Where good copies of files may be."""

    root: Path
    _by_name: dict[str, list[Path]] | None = field(default=None)

    def __post_init__(self) -> None:
        if not self.root.is_dir():
            raise ConfigError(f"{self.root} is not a directory", hint="name another store, an export, or a backup")

    def restore(self, uri: str, digest: str, store: Store) -> bool:
        """Put a copy with this digest in the place of `uri` and say whether there was one."""
        if not digest:
            return False
        target = store.place(uri)
        for path in self._candidates(uri, digest):
            if path.is_file() and durable.sha256(path) == digest:
                # A directory that a failing disk has eaten must not end the repair of the others.
                draft = target.with_name(f".{target.name}.{uuid4().hex}.tmp")
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, draft)
                if store.is_far:
                    store.remove(uri)  # an object of the same size would be taken for the one that is to be kept
                durable.place(draft, target)
                store.keep([target])
                _relink(target, digest)
                return True
        return False

    def _candidates(self, uri: str, digest: str) -> Iterator[Path]:
        if not uri.startswith("/"):
            yield self.root / uri
        if self._by_name is None:
            self._by_name = {}
            for path in self.root.rglob("*.parquet"):
                self._by_name.setdefault(path.name, []).append(path)
        yield from [*self._by_name.get(link_name(digest), ()), *self._by_name.get(f"{digest}.parquet", ())]


def _relink(part: Path, digest: str) -> None:
    """Give the links of a part in the HATS trees of its table the new file."""
    if part.parent.parent.name != "parts":
        return
    for place in list(part.parent.parent.parent.glob(f"**/Npix=*/{link_name(digest)}")):
        draft = place.with_name(f".{place.name}.{uuid4().hex}.tmp")
        try:
            os.link(part, draft)
        except OSError:
            shutil.copyfile(part, draft)
        os.replace(draft, place)


# -- children ----------------------------------------------------------------------------------------------------------------------


def verify_children(found: TableSnapshot, catalog: Catalog, store: Store, *, progress: Progress | None = None) -> int:
    """Prove that rows of a child or match table lie in their directors' cells, and orphans have none; return how many were read.

    Raise `IntegrityError` that names a key if it is not so, `ConfigError` if the director's key was never proven.
    """
    table = found.table
    if table.kind not in (TableKind.CHILD, TableKind.MATCH):
        raise ConfigError(f"{table.full_name} is a {table.kind.value} table: it has no director")
    director = catalog.find(*table.family.split(".", 1))
    if director is None or director.key_index is None:
        raise ConfigError(f"{table.full_name}: its director {table.family} has no key index", hint="prove the director's key first")
    read, known = 0, None
    for parts, is_orphan in ((found.home, False), (found.orphan, True)):
        for uri in parts.uri.to_pylist():
            with pq.ParquetFile(store.path(uri)) as file:
                for batch in file.iter_batches(_BATCH_ROWS, columns=[table.director_key, table.line_column]):
                    values = keys.to_keys(batch.column(table.director_key), table.director_key)
                    known = known or KeyCells(director.key_index, store, arrow=values.type)
                    cells, is_known = known.cells(values)
                    wrong = is_known if is_orphan else ~is_known | (cells != batch.column(table.line_column).to_numpy())
                    if wrong.any():
                        key = values[int(np.flatnonzero(wrong)[0])].as_py()
                        what = "is an orphan, but its director is there" if is_orphan else "does not lie where its director does"
                        raise IntegrityError(
                            f"{table.full_name}: a row of {table.director_key} {key!r} {what} ({uri})",
                            hint="load the table anew, and report this",
                        )
                    read += batch.num_rows
                    if progress is not None:
                        progress("prove directors", read, found.rows)
    return read + (verify_children(found.other, catalog, store, progress=progress) if found.other is not None else 0)
