"""What loads leave behind: trees without a name, and files that nothing refers to.

*Healing*: a load that was killed after it had published has a snapshot whose HATS tree still waits for its name. Whoever comes
next gives it the name, unless a later snapshot has its own tree by then.

*Sweeping*: parts, key files, manifests and records that no snapshot of the registry names are removed, but only from a table
that this process holds (`publish.exclusive`) and that no unfinished load has written to: an open load may be resumed, and its
parts are work that is done. Journals of loads that have ended, or that never came to be, are removed unless somebody is at work
on them.

*Object stores.* Other machines may load into the same store: their journals and locks are not seen here, but the registry knows
their loads. A table is swept only if no load of its catalogue goes on elsewhere, and nobody can begin one until it is done.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path

import pyarrow.parquet as pq

from qengine.catalog import durable
from qengine.catalog.files import Files
from qengine.catalog.loads import UNFINISHED, Load, LoadState
from qengine.catalog.manifest import read_header
from qengine.catalog.quality import quality_path
from qengine.catalog.registry import Registry
from qengine.errors import ConflictError, QEngineError
from qengine.loader.agenda import kin
from qengine.loader.journal import Journal, journals
from qengine.loader.publish import LOCK, STAGED, Tree, exclusive, reveal_tree

_FOLDERS = ("parts", "keys")
_ELSEWHERE = "*"
_BUSY_S = 1.0


def heal(root: Path, registry: Registry, catalog: str) -> tuple[str, ...]:
    """Give trees of published snapshots their names, remove what is left of loads that have ended, and return the ids of the loads
    that this was done for. What somebody is at work on is left alone."""
    healed = []
    known = {load.id: load for load in registry.loads()}
    for journal in journals(root, catalog):
        load = known.get(journal.folder.name)
        if load is not None and load.state in UNFINISHED:
            continue
        has_work = bool(journal.trees()) or journal.work.exists() or (load is None or load.state is LoadState.ABORTED)
        if not has_work:
            continue
        try:
            with journal.locked(is_shared=False):
                if load is None and (load := _begun_meanwhile(registry, journal)) is not None and load.state in UNFINISHED:
                    continue
                if load is not None and load.state is LoadState.FINISHED:
                    finish(root, registry, load, journal)
                else:
                    discard(registry.files, catalog, journal)
        except ConflictError:
            continue
        healed.append(journal.folder.name)
    return tuple(healed)


def _begun_meanwhile(registry: Registry, journal: Journal) -> Load | None:
    """Return the load of a journal that is held, if there is one after all: a journal comes before its load."""
    return next((load for load in registry.loads() if load.id == journal.folder.name), None)


def finish(
    root: Path, registry: Registry, load: Load, journal: Journal, *, held: Sequence[str] | None = None, is_again: bool = True
) -> None:
    """Do what remains after the publish: name the trees, and remove what the load needed; if somebody died in it (`is_again`), also
    the parts that were not ready.

    The caller holds the load and the tables `held`, if any. Raise `ConflictError` if another load holds one of them.
    """
    trees = [Tree.from_json(words, root) for words in journal.trees()]
    worn = (held or _tables(registry, load, journal)) if is_again and journal.work.exists() else ()
    tables = sorted({*worn, *(tree.table.partition(".")[2] for tree in trees)})
    with nullcontext() if held is not None else exclusive(root, load.catalog, tables, wait_s=_BUSY_S):
        for tree in trees:
            if registry.is_latest(tree.table, load.snapshot):
                reveal_tree(tree, load.snapshot, root)
            else:
                tree.discard()
        journal.forget_trees()
        sweep(root, registry, load.catalog, worn, but=load.id)
    journal.clean()


def _tables(registry: Registry, load: Load, journal: Journal) -> set[str]:
    """Return the names of the tables that a load may have written to."""
    named = [str(words["request"]["table"]) for words in journal.receipts()]
    asked = [str(table) for what in ("compact", "refresh") for table in load.context.get(what, ())]
    catalog = registry.catalog()
    return {name for table in (*named, *asked) for name in kin(catalog, load.catalog, table)}


def discard(files: Files, catalog: str, journal: Journal) -> None:
    """Remove what a load has made that is not published, but for parts. The caller holds the load."""
    name, root = journal.folder.name, files.root
    for staged in (root / catalog).glob(f"*/snapshots/{STAGED}{name}*"):
        shutil.rmtree(staged, ignore_errors=True)
    for quarantine in (root / catalog).glob(f"*/quarantine/{name}.parquet"):
        files.remove(quarantine)
    quality = quality_path(root, catalog, name)
    durable.forget_unfinished(quality)
    files.remove(quality)
    journal.remove()


def sweep(root: Path, registry: Registry, catalog: str, tables: Iterable[str], *, but: str = "") -> int:
    """Remove files of these tables that nothing refers to, and return how many. The caller holds the tables; `but` is its own load.

    Tables to which another unfinished load has contributed are left alone.
    """
    files = registry.files
    removed = 0
    with registry.quiet() if files.is_far else nullcontext():
        busy = _busy(root, registry, catalog, but)
        for table in tables:
            if table.lower() in busy or _ELSEWHERE in busy:
                continue
            kept = _referenced(root, registry, catalog, table)
            for name in _FOLDERS:
                for path in _found(files, root / catalog / table / name):
                    if path.relative_to(root).as_posix() not in kept:
                        files.remove(path)
                        removed += 1
    return removed + registry.forget_unpublished(catalog)


def forget(root: Path, registry: Registry, catalog: str, tables: Iterable[str], *, but: str = "") -> None:
    """Remove near copies of parts: they are in the object store, and a load needs its own only. The caller holds the tables."""
    busy = _busy(root, registry, catalog, but) if registry.files.is_far else set()
    for table in tables:
        if table.lower() not in busy:
            registry.files.forget(root / catalog / table / _FOLDERS[0])


def _found(files: Files, folder: Path) -> set[Path]:
    """Return all files below a folder, here and for readers elsewhere."""
    here = {path for path in folder.rglob("*") if path.is_file()}
    # what is being fetched has a name with a dot
    return {path for path in here if path.name[0] != "."} | {path for path, _ in files.listed(folder)} if files.is_far else here


def sweep_idle(root: Path, registry: Registry, catalog: str) -> int:
    """Sweep all tables of the catalogue at which nobody is at work, and return how many files were removed."""
    removed = 0
    for folder in sorted((root / catalog).glob(f"*/{LOCK}")):
        table = folder.parent.name
        with suppress(ConflictError), exclusive(root, catalog, [table]):
            removed += sweep(root, registry, catalog, [table])
    return removed


def _busy(root: Path, registry: Registry, catalog: str, but: str) -> set[str]:
    """Return the names of tables that other unfinished loads have contributed to, in lower case. One of another machine, whose
    journal is not here, may have contributed to any."""
    unfinished = [load for load in registry.loads() if load.state in UNFINISHED and load.id != but and load.catalog == catalog]
    found: set[str] = set()
    for load in unfinished:
        journal = Journal.of(root, catalog, load.id)
        if registry.files.is_far and not journal.folder.is_dir():
            found.add(_ELSEWHERE)
        try:
            found |= {str(words["request"]["table"]).lower() for words in journal.receipts()}
        except (QEngineError, KeyError):
            continue
    return found


def _referenced(root: Path, registry: Registry, catalog: str, table: str) -> set[str]:
    """Return the URIs of all files that manifests of the table name, in any snapshot."""
    found: set[str] = set()
    for manifest in registry.manifests(catalog):
        if manifest.table.partition("@")[0].lower() == table.lower():
            path = registry.files.need(root / manifest.uri)
            index = read_header(path).key_index
            found.update(index.uri if index is not None else ())
            found.update(pq.read_table(path, columns=["uri"]).column(0).to_pylist())
    return found
