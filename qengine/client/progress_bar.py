"""A line on a terminal that tells how far a query is: a bar, bytes, tasks, rows, and the time left where it can be told."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from qengine.client.terminal import progress_words
from qengine.coordinator.progress import QueryProgress

_AFTER_S = 0.5


class ProgressBar:
    """Shows what `tell` is told, after half a second, where standard error is a terminal. Use it as a context manager; `stop` takes
    the line away. May be told from another thread."""

    def __init__(self, console: Console) -> None:
        self.is_shown = console.is_terminal
        self._began = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.fields[phase]}"), BarColumn(bar_width=24), TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[words]}"), console=console, transient=True,
        )  # fmt: skip
        self._task = self._bar.add_task("query", total=1.0, phase="", words="")
        self._is_running = False
        self._is_stopped = False

    def tell(self, progress: QueryProgress) -> None:
        """Show how far the query is."""
        if self._is_stopped or not self.is_shown or time.monotonic() - self._began < _AFTER_S:
            return
        self._bar.update(self._task, completed=progress.fraction, phase=progress.phase.value, words=progress_words(progress))
        if not self._is_running:
            self._is_running = True
            self._bar.start()

    def stop(self) -> None:
        """Take the line away for good. May be called twice."""
        self._is_stopped = True
        if self._is_running:
            self._is_running = False
            self._bar.stop()

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
