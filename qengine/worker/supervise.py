"""Worker processes of this machine that live as long as their owner wants, and never longer than its process.

A worker that is kept is started again when it dies, at the address that it had, so that whoever calls it finds it there.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from qengine.errors import WorkerLostError
from qengine.worker.settings import WorkerSettings

log = logging.getLogger(__name__)

_START_S = 60.0
_STOP_S = 5.0
_LOOK_S = 0.2
_AGAIN_S = (0.2, 1.0, 5.0, 30.0)
"""How long to wait before a worker is started again; it begins anew when one has lived for a minute."""
_LIVED_S = 60.0


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


@contextlib.contextmanager
def keep_worker(store_root: Path, *, worker: str, slots: int, settings: WorkerSettings) -> Iterator[str]:
    """Start a worker as `start_worker` does, yield its address, and start it there again whenever it dies.

    Raise `WorkerLostError` if it does not come up the first time.
    """
    ending = threading.Event()
    told: queue.SimpleQueue[str | BaseException] = queue.SimpleQueue()
    keeping = threading.Thread(
        target=_keep, args=(store_root, worker, slots, settings, ending, told), name=f"qengine-keeps-{worker}", daemon=True
    )
    keeping.start()
    try:
        first = told.get()
        if isinstance(first, BaseException):
            raise first
        yield first
    finally:
        ending.set()
        keeping.join()


def _keep(
    store_root: Path, worker: str, slots: int, settings: WorkerSettings, ending: threading.Event,
    told: queue.SimpleQueue[str | BaseException],
) -> None:  # fmt: skip
    address, tries = "", 0
    while not ending.is_set():
        began = time.monotonic()
        given = replace(settings, listen=address) if address else settings
        try:
            with start_worker(store_root, worker=worker, slots=slots, settings=given) as started:
                if not address:
                    told.put(started.address)
                else:
                    log.warning("worker %s runs again at %s", worker, address)
                address = started.address
                while started.process.poll() is None and not ending.wait(_LOOK_S):
                    pass
                if ending.is_set():
                    return
            log.warning(
                "worker %s at %s has ended with status %s and is started again", worker, address, started.process.returncode
            )
        except BaseException as error:
            if not address:
                told.put(error)
                return
            log.warning("worker %s at %s cannot be started now: %s", worker, address, error)
        tries = 0 if time.monotonic() - began > _LIVED_S else tries + 1
        ending.wait(_AGAIN_S[min(tries, len(_AGAIN_S)) - 1] if tries else 0.0)


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
