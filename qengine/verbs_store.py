"""What the command line does with the files of a store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from qengine.catalog.files import LocalFiles
from qengine.catalog.model import TableKind, TableSnapshot
from qengine.catalog.records import read_records
from qengine.catalog.registry import Registry
from qengine.errors import ConfigError
from qengine.loader.export import ExportRequest
from qengine.loader.export import export as write_export
from qengine.loader.prove import prove_keys
from qengine.loader.verify import Report, restore_manifests, verify_children
from qengine.loader.verify import verify_files as check_files
from qengine.opening import open_store
from qengine.storage.bucket import is_bucket
from qengine.verbs import bars, needed, tell

_HELD_S = 86_400.0


def verify_files(store: Path | None, name: str, *, snapshot: str, repair: Path | None, as_json: bool) -> bool:
    """Check files of a catalogue, or of one table, print a report, and say whether all is well now."""
    files, registry = open_store(needed(store))
    with registry, bars() as progress:
        catalog, table, number = _named(registry, name, snapshot)
        manifests = [
            m for m in registry.manifests_at(catalog, number) if not table or m.table.split("@")[0].lower() == table.lower()
        ]
        lost = restore_manifests(manifests, files, repair)
        if all(fault.repaired for fault in lost):
            tables = _tables(registry, catalog, table, number)
            report = check_files(tables, files, catalog=catalog, snapshot=number, before=lost, copy=repair, progress=progress)
        else:
            report = Report(catalog=catalog, snapshot=number, files=len(manifests), bytes=0, rows=0, faults=lost)
    print(json.dumps(report.to_json(), indent=2) if as_json else report.to_text())
    return report.is_sound


def verify_keys(store: Path | None, name: str, key: str, *, snapshot: str) -> None:
    """Prove the keys of a catalogue, or of one table."""
    files, registry = open_store(needed(store))
    with registry, bars() as progress:
        catalog, _, table = name.partition(".")
        latest = registry.snapshot_number(catalog)
        if snapshot and registry.releases.resolve(catalog, snapshot) != latest:
            raise ConfigError(f"keys are proven of the latest snapshot, {latest}", hint="leave --snapshot out, or roll back to it")
        for found in _tables(registry, catalog, table, latest):
            if found.table.kind is TableKind.DIRECTOR and (found.table.key or table):
                proof = prove_keys(found.table.schema, found.table.name, registry, files, key=key, progress=progress)
                tell(f"{found.table.full_name}: {proof.to_text()}")
            elif found.table.kind in (TableKind.CHILD, TableKind.MATCH):
                rows = verify_children(found, registry.catalog(), files, progress=progress)
                tell(f"{found.table.full_name}: {rows:,} rows lie where their directors do (snapshot {found.number})")
            elif table:
                raise ConfigError(f"{found.table.full_name} is a {found.table.kind.value} table: it has no keys to prove")


def export(store: Path | None, name: str, output: Path, *, snapshot: str, nest: tuple[str, ...], index: tuple[str, ...]) -> None:
    """Write a catalogue, or one table of it, as HATS collections."""
    files, registry = open_store(needed(store))
    with registry, bars() as progress:
        catalog, table, number = _named(registry, name, snapshot)
        history = registry.releases.history(catalog)
        tags = [tag for tag in history.tags if tag.number == number]
        about = {"tags": [tag.name for tag in tags], "doi": [tag.doi for tag in tags if tag.doi]}
        request = ExportRequest(
            tables=tuple(_tables(registry, catalog, table, number)), target=output, catalog=catalog, snapshot=number,
            nested=tuple(one for child in nest for one in _tables(registry, catalog, child.removeprefix(f"{catalog}."), number)),
            indexed=index, about=tuple(about.items()),
        )  # fmt: skip
        with _held(registry, catalog, number):
            report = write_export(request, files, progress=progress)
    tell(report.to_text())


def rebuild(store: Path | None) -> None:
    """Restore the registry from the store."""
    root = needed(store)
    is_far = is_bucket(root)
    if not is_far and (not root.is_dir() or next(read_records(LocalFiles(root)), None) is None):
        raise ConfigError(f"{root} holds no snapshots to restore a registry from", hint="check --store")
    files, registry = open_store(root, create=True, is_rebuilding=True)
    with registry:
        count = registry.rebuild()
        names = sorted({found.table.schema for found in registry.catalog() if found.facts is None and found.inline is None})
    tell(f"{count:,} snapshots of {', '.join(names) or 'no catalogue'} are known again ({files.files.place})")


@contextmanager
def _held(registry: Registry, catalog: str, number: int) -> Iterator[None]:
    """Lease a snapshot, so that nothing that it needs is collected; should this process die, for a day."""
    holder = uuid4().hex
    registry.releases.hold(holder, [(catalog, number)], seconds=_HELD_S)
    try:
        yield
    finally:
        registry.releases.hold(holder, (), seconds=0.0)


def _named(registry: Registry, name: str, snapshot: str) -> tuple[str, str, int]:
    """Return catalogue, table (or nothing) and number of the snapshot."""
    catalog, _, table = name.partition(".")
    known = registry.snapshots(catalog)
    if not known:
        raise ConfigError(f"there is no catalogue {catalog}", hint="qengine tables lists them")
    catalog = known[-1].catalog
    return catalog, table, registry.releases.resolve(catalog, snapshot) if snapshot else known[-1].number


def _tables(registry: Registry, catalog: str, table: str, number: int) -> list[TableSnapshot]:
    known = [found for found in registry.catalog(snapshots={catalog: number}) if found.table.schema.lower() == catalog.lower()]
    chosen = [found for found in known if not table or found.table.name.lower() == table.lower()]
    if not chosen:
        raise ConfigError(f"there is no table {catalog}.{table}", hint="qengine tables lists them")
    return [found for found in chosen if not found.table.view]
