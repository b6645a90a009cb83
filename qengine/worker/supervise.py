"""Worker processes of this machine that live as long as their owner wants, and never longer than its process."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from qengine.errors import WorkerLostError
from qengine.worker.settings import WorkerSettings

_START_S = 60.0
_STOP_S = 5.0


@dataclass(frozen=True, slots=True)
class WorkerProcess:
    """A worker that was started here and takes calls at `address`."""

    worker: str
    address: str
    process: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        return self.process.pid

    def kill(self) -> None:
        """End the worker as a crash would; its slots end with it."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End the worker and wait for it."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self.kill()


@contextlib.contextmanager
def start_worker(
    store_root: Path,
    *,
    worker: str = "worker",
    slots: int = 1,
    attached: Sequence[Path] = (),
    settings: WorkerSettings | None = None,
) -> Iterator[WorkerProcess]:
    """Start a worker process on a free port of this machine and end it with the context.

    `settings` gives everything else; `store_root`, `worker`, `slots` and `attached` stand above it. The worker also ends when this
    process dies. Raise `WorkerLostError` if it does not come up.
    """
    given = replace(settings or WorkerSettings(store_root=store_root), store_root=store_root, worker=worker, slots=slots)
    if attached:
        given = replace(given, attached=tuple(attached))
    alive, hold = os.pipe()
    try:
        command = [sys.executable, "-m", "qengine.worker", replace(given, parent_fd=alive).to_json()]
        process = subprocess.Popen(command, pass_fds=[alive], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    except BaseException:
        os.close(hold)
        raise
    finally:
        os.close(alive)
    started = WorkerProcess(worker, "", process)
    try:
        yield replace(started, address=_address(process, worker))
    finally:
        started.stop()
        os.close(hold)
        if process.stdout is not None:
            process.stdout.close()


def _address(process: subprocess.Popen[bytes], worker: str) -> str:
    assert process.stdout is not None
    ends_at = time.monotonic() + _START_S
    said = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not said.endswith(b"\n"):
            if not selector.select(max(ends_at - time.monotonic(), 0.0)):
                raise WorkerLostError(f"worker {worker} did not start within {_START_S:g} s")
            chunk = os.read(process.stdout.fileno(), 4096)
            if not chunk:
                raise WorkerLostError(f"worker {worker} does not start", hint="its error is on standard error")
            said += chunk
    return said.decode().rpartition("listening on ")[2].strip()
