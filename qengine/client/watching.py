"""Tells a caller how far a query is while the caller waits for its rows: a thread asks, twice a second, and calls back."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from qengine.coordinator.progress import QueryProgress
from qengine.errors import QEngineError, UnknownNameError

log = logging.getLogger(__name__)

_EVERY_S = 0.5

Tell = Callable[[QueryProgress], None]


class ProgressWatcher:
    """Calls `tell` with what `fetch` returns, from a thread of its own, until the query has ended or `stop` is called. An error of
    either ends the watching and nothing else."""

    def __init__(self, fetch: Callable[[], QueryProgress], tell: Tell) -> None:
        self._fetch = fetch
        self._tell = tell
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="qengine-progress", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it. May be called twice, also by `tell`."""
        self._stopping.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=2.0)

    def _run(self) -> None:
        while not self._stopping.wait(_EVERY_S):
            try:
                progress = self._fetch()
            except UnknownNameError:
                continue  # the service has not heard of it yet
            except (QEngineError, RuntimeError) as error:
                log.info("progress cannot be asked for any more: %s", error)
                return
            if self._stopping.is_set():
                return
            try:
                self._tell(progress)
            except Exception:  # a caller's function; its error is not the query's
                log.exception("a progress callback failed")
                return
            if progress.phase.is_end:
                return
