"""Loads on the command line: bars for people, lines of JSON for programs. Both go to standard error."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn

from qengine.client.terminal import duration, size
from qengine.loader.progress import LoadProgress, Meter
from qengine.loader.request import Progress as Report

_EVERY_S = 1.0


class JsonLines:
    """Writes progress as lines of JSON, of a stage at most one a second and one at its end."""

    def __init__(self, out: IO[str] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._out = out
        self._clock = clock
        self._told: dict[tuple[str, str], float] = {}

    def tell(self, at: LoadProgress) -> None:
        """Write a line, if it is time for one."""
        now, name = self._clock(), (at.table, at.stage)
        if not at.is_done and now - self._told.get(name, -_EVERY_S) < _EVERY_S:
            return
        self._told[name] = now
        print(json.dumps(at.to_json()), file=self._out or sys.stderr, flush=True)


def words_of(at: LoadProgress) -> str:
    """Return progress in words, such as those beside a bar."""
    words = [f"{at.rows:,}/{max(at.rows, at.rows_total):,} rows"]
    if at.bytes:
        words.append(size(at.bytes))
    if at.rows_per_s:
        words.append(f"{at.rows_per_s:,.0f} rows/s")
    if at.eta_s:
        words.append(f"about {duration(at.eta_s)} left")
    return ", ".join(words)


@contextmanager
def load_bars() -> Iterator[Report]:
    """Bars for the stages of a load; nothing where standard error is not a terminal."""
    bars = Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[words]}"),
        console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty(),
    )  # fmt: skip
    tasks: dict[tuple[str, str], TaskID] = {}

    def tell(at: LoadProgress) -> None:
        name = (at.table, at.stage)
        if name not in tasks:
            tasks[name] = bars.add_task(f"{at.table} {at.stage}".strip(), words="")
        bars.update(tasks[name], completed=at.rows, total=max(at.rows, at.rows_total), words=words_of(at))

    with bars:
        yield Meter(tell=tell)
