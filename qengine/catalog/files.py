"""Where the files of a store are for good: in its directory, or in an object store of which the directory is a near copy.

Everything that writes a store makes finished files below `root` first, at the place that their URI names. What the object store
guarantees is then the same as what a directory does, with other means:

* `keep` ends when readers anywhere can have the files and a power cut cannot take them. In a directory they have their names
  already and are synced by who wrote them; an object appears with its last byte, or not at all. There is no rename.
* `need` ends when the file is below `root`, as far as there is one. An object is fetched under a temporary name and checked
  against its digest, where its name is its digest (parts, key indexes), before it takes its place.
* `remove` takes the file and the object away; that there is none is no error.
* `listed` are the places of all files below a folder as readers elsewhere see them.

Parts, key indexes and manifests never change, so a near copy of one is as good as the object. Records, tags and quality files may
be written again by whoever holds the registry: `follow` fetches them anew. Locks, journals and scratch stay in the directory: they
belong to the machine that is at work. So does `registry.sqlite` where no database is named; `claim` sees to it that a store has
one registry only.

No method says anything of a file of which another process may be writing a new version: files of one name have one writer at a
time (the holder of the table, of the load, or of the registry's lock).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class Files(Protocol):
    """The files of a store. All paths are absolute, below `root`."""

    @property
    def root(self) -> Path:
        """Return the directory of the store, or of its near copy."""

    @property
    def is_far(self) -> bool:
        """Return whether the directory is only a near copy."""

    @property
    def place(self) -> str:
        """Return what the store is called: its directory or address."""

    def keep(self, paths: Iterable[Path]) -> None:
        """Make finished files last. Raise `StoreUnavailableError` if that could not be done for all of them."""

    def need(self, path: Path) -> Path:
        """Return the path, with the file at it if there is one. Raise `StoreUnavailableError` or `IntegrityError`."""

    def exists(self, path: Path) -> bool:
        """Return whether there is such a file for readers anywhere."""

    def remove(self, path: Path) -> None:
        """Delete the file if there is one, everywhere."""

    def listed(self, folder: Path) -> Iterator[tuple[Path, int]]:
        """Yield place and bytes of all files below the folder, in any order; those whose names begin with a dot are left out."""

    def follow(self, folder: Path) -> None:
        """Make the near copy of everything below a folder of small files the same as what readers elsewhere see."""

    def forget(self, folder: Path) -> None:
        """Remove the near copy of what is below the folder; nothing where it is no copy."""


@dataclass(frozen=True, slots=True)
class LocalFiles:
    """The files of a store that is a directory."""

    root: Path

    @property
    def is_far(self) -> bool:
        return False

    @property
    def place(self) -> str:
        return str(self.root)

    def keep(self, paths: Iterable[Path]) -> None:
        """Do nothing: who made the files has synced them."""

    def need(self, path: Path) -> Path:
        return path

    def exists(self, path: Path) -> bool:
        return path.is_file()

    def remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def listed(self, folder: Path) -> Iterator[tuple[Path, int]]:
        for path in folder.rglob("*"):
            try:
                if path.is_file() and not path.name.startswith("."):
                    yield path, path.stat().st_size
            except FileNotFoundError:
                continue

    def follow(self, folder: Path) -> None:
        """Do nothing: there is no copy."""

    def forget(self, folder: Path) -> None:
        """Do nothing: there is no copy."""
