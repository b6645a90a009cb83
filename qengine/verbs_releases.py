"""What the command line does with snapshots."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from rich.console import Console
from rich.table import Table

from qengine.catalog.registry import Registry
from qengine.catalog.releases import ReleaseState
from qengine.errors import ConfigError
from qengine.loader import collect as garbage
from qengine.opening import open_store
from qengine.plan.limits import CostLimit
from qengine.storage.objects import Store
from qengine.verbs import needed, tell


def snapshots(store: Path | None, catalog: str) -> None:
    """List the snapshots of a catalogue."""
    with _opened(store) as (_, registry):
        entries = registry.snapshots(catalog)
        history = registry.releases.history(catalog)
        state = registry.releases.states().get(entries[0].catalog) if entries else None
        loads = {load.id: load for load in registry.loads()}
    names: dict[int, list[str]] = {}
    for found in history.tags:
        names.setdefault(found.number, []).append(f"{found.name} ({found.doi})" if found.doi else found.name)
    table = Table("snapshot", "published (UTC)", "load", "why", "tags", "", box=None, header_style="bold", pad_edge=False)
    for entry in entries:
        load = loads.get(entry.load)
        marks = ["latest"] if entry.number == history.latest else []
        marks += ["read"] if entry.number in history.leased else []
        marks += [f"expired {history.expired[entry.number]:%Y-%m-%d}"] if entry.number in history.expired else []
        why = str(load.context.get("why") or "") if load is not None else ""
        table.add_row(
            str(entry.number), f"{entry.published:%Y-%m-%d %H:%M:%S}", entry.load[:8], why, ", ".join(names.get(entry.number, [])),
            ", ".join(marks),
        )  # fmt: skip
    Console().print(table)
    if state is not None:
        groups = f" for {', '.join(sorted(state.groups))}" if state.groups else ""
        tell(f"{catalog} is {state.state.value}{groups}")


def tag(store: Path | None, catalog: str, snapshot: str, name: str, *, doi: str, note: str) -> None:
    """Name a snapshot."""
    with _opened(store) as (_, registry):
        number = registry.releases.resolve(catalog, snapshot)
        made = registry.releases.tag(catalog, number, name, doi=doi, note=note)
    tell(f"{made.catalog} at snapshot {made.number} is {made.name}" + (f", {made.doi}" if made.doi else ""))


def untag(store: Path | None, catalog: str, name: str) -> None:
    """Forget a tag."""
    with _opened(store) as (_, registry):
        registry.releases.untag(catalog, name)
    tell(f"{catalog} has no tag {name} any more")


def promote(store: Path | None, catalog: str, state: str, groups: tuple[str, ...]) -> None:
    """Set the state of a catalogue."""
    with _opened(store) as (_, registry):
        registry.releases.promote(catalog, ReleaseState(state), groups)
    tell(f"{catalog} is {state}" + (f" for {', '.join(groups)}" if groups else ""))


def rollback(store: Path | None, catalog: str, snapshot: str, *, why: str) -> None:
    """Publish an older snapshot as the latest one."""
    with _opened(store) as (files, registry):
        number = registry.releases.resolve(catalog, snapshot)
        made = registry.releases.rollback(catalog, number, why=why)
        garbage.point_trees(files.root, registry, catalog)
    tell(f"{catalog} is at snapshot {made}, which has what {number} had")


def expire(store: Path | None, catalog: str, *, keep: int | None, older_than_days: float | None) -> None:
    """Expire old snapshots."""
    age = timedelta(days=older_than_days) if older_than_days is not None else None
    with _opened(store) as (_, registry):
        gone = registry.releases.expire(catalog, keep=keep, older_than=age)
    tell(f"expired: {', '.join(map(str, gone))}" if gone else "nothing expires")


def collect(store: Path | None, catalog: str, *, grace_minutes: float) -> None:
    """Remove what nobody can need any more."""
    with _opened(store) as (files, registry):
        done = garbage.collect(files.root, registry, catalog, grace=timedelta(minutes=grace_minutes))
    tell(done.to_text())


def budget(store: Path | None, catalog: str, size: str) -> None:
    """Set a budget, or list them with what is used."""
    with _opened(store) as (files, registry):
        if size:
            limit = None if size == "none" else CostLimit.parse(size)
            if limit is not None and (limit.bytes is None or limit.seconds is not None):
                raise ConfigError(f"{size!r} is no amount of bytes", hint="for example 500GB, or none")
            registry.releases.set_budget(catalog, int(limit.bytes) if limit is not None and limit.bytes is not None else None)
        for name, allowed in sorted(registry.releases.budgets().items()):
            used = garbage.taken_bytes(files.files, files.root / name if name else files.root)
            print(f"{name or 'the whole store'}: {used / 1e9:,.3f} GB of {allowed / 1e9:,.3f} GB")


@contextmanager
def _opened(store: Path | None) -> Iterator[tuple[Store, Registry]]:
    files, registry = open_store(needed(store))
    with registry:
        yield files, registry
