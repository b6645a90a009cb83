"""Where the results of jobs are kept: files in a folder of the store, one folder for each job.

A result has the epoch in its name, so that a runner that was taken for dead cannot touch that of its successor. It is made in the
directory of the store, or in its near copy, and `kept` where all processes can read it (`catalog.files`) before its job is done.
What a job leaves is removed with the job; what nobody's job left (its process died at the wrong moment) is found by `orphans`.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from qengine.catalog import durable
from qengine.catalog.files import Files
from qengine.catalog.jobs import Job
from qengine.tap import uploads

_FOLDER = "_results"
_ID = re.compile(r"[0-9a-f]{32}")
_RESULT = re.compile(r"\.?result-(\d+)\..*")
_SETTLED_S = 3600
"""An orphan younger than this may belong to a job that is just being made."""


class ResultFolder:
    """The files of all jobs of a store."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._root = files.root / _FOLDER

    def of(self, job: Job) -> Path:
        """Return the folder of a job."""
        return self._root / job.id

    def target(self, job: Job, suffix: str) -> Path:
        """Return where the job's result goes while it runs under its present epoch."""
        return self.of(job) / f"result-{job.epoch}.{suffix}"

    def publish(self, draft: Path, target: Path) -> None:
        """Give a finished file its name, so that it lasts and readers elsewhere have it."""
        durable.place(draft, target)
        self._files.keep([target])

    def result(self, job: Job) -> Path:
        """Return where the result of a completed job is; there is no file if it is lost."""
        return self._files.need(self.of(job) / Path(str(job.result["file"])).name)

    def save_uploads(self, job: Job, tables: Mapping[str, pa.Table]) -> Job:
        """Keep the uploaded tables of a job beside its result, and return the job that says where."""
        saved = uploads.save(tables, self.of(job))
        self._files.keep([self.of(job) / one["file"] for one in saved.values()])
        return replace(job, uploads=saved)

    def drop_uploads(self, job: Job) -> None:
        """Delete the uploaded tables of a job that does not get them."""
        for one in job.uploads.values():
            self._files.remove(self.of(job) / Path(str(one["file"])).name)

    def uploads(self, job: Job) -> dict[str, pa.Table]:
        """Return the uploaded tables of a job."""
        files = {name: Path(str(one["file"])).name for name, one in job.uploads.items()}
        return uploads.load({name: self._files.need(self.of(job) / file) for name, file in files.items()})

    def remove(self, job: str) -> None:
        """Delete all that a job has left; nothing is no error."""
        if not _ID.fullmatch(job):
            return
        folder = self._root / job
        if self._files.is_far:
            for path, _ in list(self._files.listed(folder)):
                self._files.remove(path)
        shutil.rmtree(folder, ignore_errors=True)

    def clear_older(self, job: Job) -> None:
        """Delete what processes have left that ran the job before and died."""
        if job.losses:
            self._clear(job, lambda epoch: epoch < job.epoch)

    def clear_own(self, job: Job) -> None:
        """Delete what this run of the job has made: it does not count."""
        self._clear(job, lambda epoch: epoch == job.epoch)

    def _clear(self, job: Job, is_gone: Callable[[int], bool]) -> None:
        paths = set(self.of(job).glob("*"))
        if self._files.is_far:
            paths |= {path for path, _ in self._files.listed(self.of(job))}
        for path in paths:
            if (found := _RESULT.fullmatch(path.name)) and is_gone(int(found[1])):
                self._files.remove(path)

    def present(self) -> frozenset[str]:
        """Return the jobs that have left something, but for the very newest."""
        young = time.time() - _SETTLED_S
        here = self._root.iterdir() if self._root.is_dir() else ()
        found = {one.name for one in here if one.stat().st_mtime < young}
        if self._files.is_far:
            found |= {path.relative_to(self._root).parts[0] for path, _ in self._files.listed(self._root)}
        return frozenset(name for name in found if _ID.fullmatch(name))


def orphans(present: Collection[str], known: Collection[str]) -> list[str]:
    """Return what is present of jobs that are not known; `present` must have been looked at first."""
    return sorted(set(present) - set(known))
