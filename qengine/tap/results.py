"""Where the results of jobs are kept: files in a folder of the store, one folder for each job.

A result has the epoch in its name, so that a runner that was taken for dead cannot touch that of its successor. What a job leaves
is removed with the job; what nobody's job left (its process died at the wrong moment) is found by `orphans`.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Collection
from pathlib import Path

from qengine.catalog.jobs import Job

FOLDER = "_results"
_ID = re.compile(r"[0-9a-f]{32}")
_SETTLED_S = 3600
"""An orphan younger than this may belong to a job that is just being made."""


class ResultFolder:
    """The files of all jobs, below `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def of(self, job: Job) -> Path:
        """Return the folder of a job."""
        return self._root / job.id

    def target(self, job: Job, suffix: str) -> Path:
        """Return where the job's result goes while it runs under its present epoch."""
        return self.of(job) / f"result-{job.epoch}.{suffix}"

    def result(self, job: Job) -> Path:
        """Return where the result of a completed job is."""
        return self.of(job) / Path(str(job.result["file"])).name

    def remove(self, job: str) -> None:
        """Delete all that a job has left; nothing is no error."""
        if _ID.fullmatch(job):
            shutil.rmtree(self._root / job, ignore_errors=True)

    def clear_older(self, job: Job) -> None:
        """Delete what processes have left that ran the job before and died."""
        for path in self.of(job).glob("*result-*"):
            if int(path.name.partition("result-")[2].partition(".")[0]) < job.epoch:
                path.unlink(missing_ok=True)

    def clear_own(self, job: Job) -> None:
        """Delete what this run of the job has made: it does not count."""
        for path in self.of(job).glob(f"*result-{job.epoch}.*"):
            path.unlink(missing_ok=True)

    def present(self) -> frozenset[str]:
        """Return the jobs that have left something, but for the very newest."""
        if not self._root.is_dir():
            return frozenset()
        young = time.time() - _SETTLED_S
        folders = [one for one in self._root.iterdir() if _ID.fullmatch(one.name)]
        return frozenset(one.name for one in folders if one.stat().st_mtime < young)


def orphans(present: Collection[str], known: Collection[str]) -> list[str]:
    """Return what is present of jobs that are not known; `present` must have been looked at first."""
    return sorted(set(present) - set(known))
