"""Stages of the work on a table that are done: what a load that was killed need not do again.

A stage leaves files in its folder and a marker, `<stage>.json`, with what it has found out and with size and digest of its files.
The marker is written last, as a whole or not at all. A later attempt takes a stage as done if its marker is there, all its files
are what the marker says, and all stages before it were taken as done too; from the first one that is not, everything is done again.
So nothing is trusted that was not checked, whatever has happened to the machine. Files of more than a few megabytes reach the disk
before the marker does; smaller ones are sooner made again than waited for.

A *log* is a stage in many steps: one line for each step, with the same rule for each.

All of it belongs to one `mark`, which names what the work was begun from; the folder is emptied for another one.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qengine.catalog import durable
from qengine.storage.digest import FastDigest

_SYNC_BYTES = 16 << 20
_PIECE = 4 << 20
_MARK = "mark"


@dataclass(frozen=True, slots=True)
class Sealed:
    """A file that is finished: its name, relative to the folder of the work if it is in there, its size and its digest (xxh3)."""

    name: str
    bytes: int
    digest: str


class Stages:
    """The stages of one table's work, in `folder`."""

    def __init__(self, folder: Path, mark: str) -> None:
        self._folder = folder
        self._is_going_on = True
        self._known: set[str] = set()
        path = folder / _MARK
        if not path.is_file() or path.read_text() != mark:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True, exist_ok=True)
            path.write_text(mark)

    def folder(self, stage: str) -> Path:
        """Return where the files of a stage lie."""
        return self._folder / stage

    def find(self, stage: str) -> dict[str, Any] | None:
        """Return what a stage has found out if it is done and its files are as they were; None if it is to be done."""
        words = self._words(stage) if self._is_going_on else None
        if words is None or not self.check(Sealed(*one) for one in words["files"]):
            self._is_going_on = False
            return None
        self._known.add(stage)
        found: dict[str, Any] = words["found"]
        return found

    def begin(self, stage: str) -> Path:
        """Return an empty folder for a stage that is to be done; what was done after it counts no more."""
        self._known.discard(stage)
        for path in self._folder.glob("*.json*"):
            if path.name.partition(".")[0] not in self._known:
                path.unlink(missing_ok=True)
        self._is_going_on = False
        folder = self.folder(stage)
        shutil.rmtree(folder, ignore_errors=True)
        # a worker of an earlier attempt that nobody could stop may still leave something in it, under a name of its own
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def finish(self, stage: str, found: Mapping[str, Any], files: Sequence[Sealed] = ()) -> None:
        """Note that a stage is done: what it has found out (JSON values) and its files."""
        marker = self._folder / f"{stage}.json"
        text = _signed({"found": dict(found), "files": [(one.name, one.bytes, one.digest) for one in files]})
        if sum(one.bytes for one in files) >= _SYNC_BYTES:
            for one in files:
                durable.sync_file(self._folder / one.name)
            with durable.writing(marker) as temporary:
                temporary.write_text(text)
        else:
            temporary = marker.with_suffix(".tmp")
            temporary.write_text(text)
            os.replace(temporary, marker)
        self._known.add(stage)

    # -- stages in many steps -------------------------------------------------------------------------------------------------

    def lines(self, stage: str) -> list[dict[str, Any]]:
        """Return the lines of a log, those that are whole; none if a stage before it is to be done again."""
        path = self._folder / f"{stage}.jsonl"
        if not self._is_going_on or not path.is_file():
            return []
        found = [_read(line) for line in path.read_bytes().split(b"\n")[:-1]]
        return [line for line in found if line is not None]

    def keep_lines(self, stage: str, lines: Iterable[Mapping[str, Any]]) -> None:
        """Let the log hold just these lines."""
        self.folder(stage).mkdir(parents=True, exist_ok=True)
        (self._folder / f"{stage}.jsonl").write_text("".join(_signed(line) + "\n" for line in lines))
        self._known.add(stage)

    def add_line(self, stage: str, line: Mapping[str, Any]) -> None:
        """Note a step that is done."""
        with (self._folder / f"{stage}.jsonl").open("a") as file:
            file.write(_signed(line) + "\n")

    # -- files ----------------------------------------------------------------------------------------------------------------

    def seal(self, path: Path) -> Sealed:
        """Return what a finished file is."""
        return self.sealed(path, path.stat().st_size, _digest(path))

    def sealed(self, path: Path, size: int, digest: str) -> Sealed:
        """Return what a finished file is whose size and digest are known."""
        return Sealed(path.relative_to(self._folder).as_posix() if path.is_relative_to(self._folder) else str(path), size, digest)

    def check(self, files: Iterable[Sealed]) -> bool:
        """Say whether all files are as they were."""
        for one in files:
            path = self._folder / one.name
            if not path.is_file() or path.stat().st_size != one.bytes or _digest(path) != one.digest:
                return False
        return True

    def _words(self, stage: str) -> dict[str, Any] | None:
        try:
            return _read((self._folder / f"{stage}.json").read_bytes())
        except OSError:
            return None


def _signed(words: Mapping[str, Any]) -> str:
    """Return JSON values as text that shows whether it has changed."""
    text = json.dumps(dict(words))
    return f"{_of(text.encode())} {text}"


def _read(line: bytes) -> dict[str, Any] | None:
    """Return the values that `_signed` wrote, None if the text is not whole."""
    digest, _, text = line.partition(b" ")
    if digest.decode(errors="replace") != _of(text):
        return None
    found: dict[str, Any] = json.loads(text)
    return found


def _of(text: bytes) -> str:
    digest = FastDigest()
    digest.update(text)
    return digest.hexdigest()


def _digest(path: Path) -> str:
    found = FastDigest()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            found.update(piece)
    return found.hexdigest()
