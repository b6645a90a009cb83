"""Records of snapshots: what a catalogue's snapshot consists of, as small JSON files in the store.

The registry is the truth; the records let `Registry.rebuild` restore it. `<catalog>/_snapshots/<number>.json` names the manifests
of one snapshot with their digests, the load that made it, what that load has read and whose rows it took away. A record is
written just before its transaction commits, so the newest may be of a snapshot that was never published; the next writer of
that number replaces it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from qengine.catalog import definition, durable
from qengine.catalog.files import Files
from qengine.catalog.inputs import InputRecord
from qengine.catalog.loads import Load, LoadState
from qengine.catalog.manifest import read_definition, read_header
from qengine.errors import RegistryError

FOLDER = "_snapshots"

InputName = tuple[int, str, int]
"""Names an input of a catalogue: number of the load, table, number of the input."""


@dataclass(frozen=True, slots=True)
class ManifestRef:
    """Where a table's manifest lies in the store, the sha256 of its bytes, and the definition in it as JSON."""

    table: str
    uri: str
    digest: str
    definition: str


@dataclass(frozen=True, slots=True)
class SnapshotRecord:
    """One snapshot of a catalogue: the load that made it, and its manifests.

    `made_by` is more about that load, None in records of older versions; `inputs` is what it has read, `replaced` whose rows it
    took away, and `restored` whose rows it brought back (a rollback). The record of a snapshot whose files are gone has no
    manifests and says since when (`expired`, ISO 8601).
    """

    catalog: str
    number: int
    load: str
    manifests: tuple[ManifestRef, ...]
    made_by: Load | None = None
    inputs: tuple[InputRecord, ...] = ()
    replaced: tuple[InputName, ...] = ()
    restored: tuple[InputName, ...] = ()
    expired: str = ""


def record_path(root: Path, catalog: str, number: int) -> Path:
    """Return where the record of a snapshot lies."""
    return root / catalog / FOLDER / f"{number:06d}.json"


def write_record(files: Files, record: SnapshotRecord) -> None:
    """Write the record, whole or not at all."""
    words = {
        "catalog": record.catalog,
        "number": record.number,
        "load": record.load,
        "tables": [{"table": m.table, "uri": m.uri, "digest": m.digest} for m in record.manifests],
        "made_by": _load_words(record.made_by) if record.made_by is not None else None,
        "inputs": [_input_words(one) for one in record.inputs],
        "replaced": [list(name) for name in record.replaced],
        "restored": [list(name) for name in record.restored],
        "expired": record.expired,
    }
    path = record_path(files.root, record.catalog, record.number)
    with durable.writing(path) as temporary:
        temporary.write_text(json.dumps(words, indent=1))
    files.keep([path])


def read_records(files: Files, catalog: str = "") -> Iterator[SnapshotRecord]:
    """Yield the snapshots of every catalogue in the store, or of one, oldest first.

    A catalogue without records gets one snapshot per number that its manifests carry, each with the newest manifest so far of
    every table. Raise `RegistryError` if a record cannot be read or names a manifest that is gone.
    """
    root = files.root
    if catalog:
        names = {catalog}
    elif files.is_far:
        names = {path.relative_to(root).parts[0] for path, _ in files.listed(root) if path.parent != root}
    else:
        names = {path.name for path in root.iterdir() if path.is_dir()}
    for folder in (root / name for name in sorted(names)):
        files.follow(folder / FOLDER)
        records = sorted((folder / FOLDER).glob("[0-9]*.json"))
        if records:
            yield from (_read(files, path) for path in records)
        else:
            yield from _from_manifests(files, folder)


def _read(files: Files, path: Path) -> SnapshotRecord:
    try:
        words = json.loads(path.read_text())
        manifests = tuple(_ref(files, files.root / entry["uri"], entry["digest"]) for entry in words["tables"])
        return SnapshotRecord(
            words["catalog"], words["number"], words["load"], manifests,
            made_by=_load(words["made_by"], words["number"]) if words.get("made_by") else None,
            inputs=tuple(_input(one) for one in words.get("inputs", ())),
            replaced=_names(words.get("replaced", ())), restored=_names(words.get("restored", ())),
            expired=words.get("expired", ""),
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RegistryError(f"record {path} cannot be read: {error}", hint="remove it to restore the other snapshots") from error


def _from_manifests(files: Files, folder: Path) -> Iterator[SnapshotRecord]:
    names = sorted(path for path, _ in files.listed(folder) if path.match("*/manifests/[0-9]*.parquet"))
    found = [(read_header(files.need(path)), path) for path in names]
    newest: dict[str, ManifestRef] = {}
    for number in sorted({header.number for header, _ in found}):
        for header, path in found:
            if header.number == number:
                newest[header.table] = _ref(files, path, durable.sha256(path))
        yield SnapshotRecord(folder.name, number, "", _by_name(newest.values()))


def _ref(files: Files, path: Path, digest: str) -> ManifestRef:
    table = read_definition(files.need(path))
    return ManifestRef(table.name, path.relative_to(files.root).as_posix(), digest, definition.to_json(table))


def _by_name(manifests: Iterable[ManifestRef]) -> tuple[ManifestRef, ...]:
    return tuple(sorted(manifests, key=lambda manifest: manifest.table.lower()))


def _names(words: Iterable[Any]) -> tuple[InputName, ...]:
    return tuple((int(load), str(table), int(number)) for load, table, number in words)


def _load_words(load: Load) -> dict[str, Any]:
    return {
        "id": load.id, "number": load.number, "catalog": load.catalog, "context": dict(load.context),
        "started": load.started.isoformat(),
    }  # fmt: skip


def _load(words: Mapping[str, Any], snapshot: int) -> Load:
    started = datetime.fromisoformat(words["started"])
    return Load(
        id=words["id"], number=words["number"], catalog=words["catalog"], context=words["context"], started=started,
        finished=started, state=LoadState.FINISHED, error="", snapshot=snapshot,
    )  # fmt: skip


def _input_words(one: InputRecord) -> dict[str, Any]:
    return {**asdict(one), "coverage": base64.b64encode(one.coverage).decode()}


def _input(words: Mapping[str, Any]) -> InputRecord:
    return InputRecord(**{**words, "coverage": base64.b64decode(words["coverage"])})
