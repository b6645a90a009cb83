"""The journal of a load: what it was given and how far it is, in files that survive the processes that work on it.

    <store>/<catalog>/_loads/<load id>/
        lock                        held by who works on the load: shared to contribute, alone to commit or abort
        receipts/<table>/<name>.json  one contribution each, whole or absent
        staged/<table>/...          copies of rows whose originals may go away
        base.json                   the manifests that the commit has started from
        work/                       what the commit has made so far, as `change_tables` keeps it
        trees.json                  HATS trees that wait for their names until the snapshot is published
        report.json                 what the load has done; all that stays when it is finished

Locks die with their processes, so what is not locked has nobody at work on it, on this machine and on others that share the files.
The journal knows files only; the registry says what state a load is in, and `loader.transaction` what follows from both.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from qengine.catalog import durable
from qengine.errors import ConflictError, RegistryError

FOLDER = "_loads"
_WAIT_S = 0.2
_KEPT = ("lock", "report.json")


@dataclass(frozen=True, slots=True)
class Journal:
    """The folder of one load."""

    folder: Path

    @classmethod
    def of(cls, root: Path, catalog: str, load: str) -> Journal:
        """Return the journal of a load in the store at `root`; it need not exist yet."""
        return cls(root / catalog / FOLDER / load)

    @property
    def work(self) -> Path:
        """Return where the commit keeps what it has made so far."""
        return self.folder / "work"

    def staged(self, table: str) -> Path:
        """Return where copies of a table's rows lie."""
        return self.folder / "staged" / table

    @contextmanager
    def locked(self, *, is_shared: bool, wait_s: float = 0.0) -> Iterator[None]:
        """Hold the load, with other contributors (`is_shared`) or alone. Raise `ConflictError` if it is held after `wait_s`."""
        whose = "the load is being committed or aborted" if is_shared else "somebody is at work on the load"
        path, deadline = self.folder / "lock", time.monotonic() + wait_s
        with ExitStack() as stack:
            while True:
                left_s = max(0.0, deadline - time.monotonic())
                try:
                    self.folder.mkdir(parents=True, exist_ok=True)
                    file = stack.enter_context(
                        held(path, is_shared=is_shared, wait_s=left_s, message=f"{whose} ({self.folder.name})")
                    )
                    if _is_at(file, path):
                        break
                except (FileNotFoundError, FileExistsError):  # whoever took it for dead has removed it meanwhile: make it again
                    if self.folder.is_file():
                        raise
            yield

    def is_idle(self) -> bool:
        """Return whether nobody is at work on the load."""
        if not self.folder.is_dir():
            return True
        try:
            with self.locked(is_shared=False):
                return True
        except ConflictError:
            return False

    # -- contributions --------------------------------------------------------------------------------------------------------

    def write_receipt(self, table: str, name: str, words: Mapping[str, Any]) -> None:
        """Keep a contribution, whole or not at all; one of the same name is replaced."""
        self._write(Path("receipts") / table / f"{name}.json", words)

    def receipts(self) -> tuple[dict[str, Any], ...]:
        """Return all contributions by table and name."""
        return tuple(self._read(path) for path in sorted((self.folder / "receipts").glob("*/*.json")))

    # -- the commit -----------------------------------------------------------------------------------------------------------

    def begin_work(self, base: Mapping[str, Any]) -> bool:
        """Note the manifests that a commit starts from, and return whether earlier work on the same ones can go on.

        Work that was done on others is removed.
        """
        path = self.folder / "base.json"
        can_go_on = path.is_file() and self._read(path) == dict(base)
        if not can_go_on:
            self.forget_trees()
            shutil.rmtree(self.work, ignore_errors=True)
            self._write(Path("base.json"), base)
        self.work.mkdir(parents=True, exist_ok=True)
        return can_go_on

    def write_trees(self, trees: list[dict[str, Any]]) -> None:
        """Note the HATS trees that get their names when the snapshot is published."""
        self._write(Path("trees.json"), {"trees": trees})

    def trees(self) -> list[dict[str, Any]]:
        """Return the HATS trees that wait for their names."""
        path = self.folder / "trees.json"
        return list(self._read(path)["trees"]) if path.is_file() else []

    def forget_trees(self) -> None:
        """Note that no tree waits for its name."""
        (self.folder / "trees.json").unlink(missing_ok=True)

    def write_report(self, words: Mapping[str, Any]) -> None:
        """Keep what the load has done."""
        self._write(Path("report.json"), words)

    def report(self) -> dict[str, Any] | None:
        """Return what the load has done, None before it is finished."""
        path = self.folder / "report.json"
        return self._read(path) if path.is_file() else None

    # -- the end --------------------------------------------------------------------------------------------------------------

    def clean(self) -> None:
        """Remove everything but the report: the load is finished."""
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name not in _KEPT:
                path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove everything: the load was aborted."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write(self, path: Path, words: Mapping[str, Any]) -> None:
        with durable.writing(self.folder / path) as temporary:
            temporary.write_text(json.dumps(dict(words), indent=1, default=str, ensure_ascii=False))

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise RegistryError(f"{path} cannot be read: {error}", hint="abort the load and begin another") from error
        return found


def journals(root: Path, catalog: str) -> tuple[Journal, ...]:
    """Return the journals of all loads of a catalogue that have left one."""
    return tuple(Journal(path) for path in sorted((root / catalog / FOLDER).glob("*")) if path.is_dir())


@contextmanager
def held(
    path: Path, *, is_shared: bool = False, wait_s: float = 0.0, message: str, waiting: Callable[[], None] | None = None
) -> Iterator[IO[str]]:
    """Hold a lock file and yield it. Raise `ConflictError` with `message` if somebody else holds it for longer than `wait_s`."""
    deadline = time.monotonic() + wait_s
    with path.open("a") as file:
        while True:
            try:
                fcntl.flock(file, (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                break
            except OSError as error:
                if time.monotonic() >= deadline:
                    raise ConflictError(message, hint="wait for it to end, or let this one wait") from error
                if waiting is not None:
                    waiting()
                time.sleep(min(_WAIT_S, max(0.0, deadline - time.monotonic())))
        yield file


def _is_at(file: IO[str], path: Path) -> bool:
    """Say whether an open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
