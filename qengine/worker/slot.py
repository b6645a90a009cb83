"""A slot: the process that computes, one task at a time, with one DuckDB (`python -m qengine.worker.slot FD SETTINGS`).

The front starts it with one end of a socket pair. The main thread runs tasks; a second thread reads what the front sends, so that
a cancel reaches a busy slot, and ends the process at once when the socket closes: a slot never outlives its front. On Linux the
kernel also kills it when the front dies.

The address space is limited to what the process has after its start plus the memory that DuckDB may use plus some room for Arrow
and Python. DuckDB's own limit does not bind scalar functions (`repeat`, `range`); with this one they fail as out of memory, and
the slot lives.

The kernel of sky joins takes half a second to load, and 43 MB. A slot that has had nothing to do for a moment loads it in a
thread of its own: the first join on distance need not wait, and a start is as quick as ever. A task that needs the kernel
meanwhile waits for the rest of it only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import queue
import resource
import signal
import socket
import sys
import threading
from pathlib import Path

from qengine.errors import ProtocolError, QEngineError
from qengine.execution.runner import TaskRunner
from qengine.execution.skyjoin import warm_up
from qengine.execution.spool import Spool
from qengine.execution.verify import PartVerifier
from qengine.plan.physical import Failed, Finished, TaskEvent
from qengine.transport import codec
from qengine.worker.frames import Frame, Kind, receive, send
from qengine.worker.settings import WorkerSettings

ROOM_BYTES = 1 << 30
"""Address space beyond DuckDB's memory: held rows, Arrow's encoding, thread stacks."""

WARM_AFTER_S = 1.5
"""How long a slot must have had nothing to do before it loads the kernel of sky joins."""

_PR_SET_PDEATHSIG = 1


class Slot:
    """Reads frames from the front, runs tasks, answers with frames."""

    def __init__(self, front: socket.socket, settings: WorkerSettings, work_dir: Path) -> None:
        self._front = front
        self._sending = threading.Lock()
        self._requests: queue.SimpleQueue[Frame] = queue.SimpleQueue()
        self._state = threading.Lock()
        self._serial = 0
        self._cancelled = -1
        self._runner = TaskRunner(
            settings.store_root,
            settings.engine(work_dir),
            verifier=PartVerifier(when=settings.verify, stamps=work_dir / "verified"),
            spool=Spool(work_dir / "spool"),
            attached=settings.attached,
            is_attach_open=settings.is_attach_open,
            cache=settings.cache(),
        )

    def serve(self) -> None:
        """Run tasks until the process is ended."""
        threading.Thread(target=self._read, name="qengine-front", daemon=True).start()
        self._send(Frame(Kind.READY, 0, b""))
        while True:
            try:
                request = self._requests.get(timeout=WARM_AFTER_S)
            except queue.Empty:
                break
            self._run(request)
        threading.Thread(target=warm_up, name="qengine-warm-up", daemon=True).start()
        while True:
            self._run(self._requests.get())

    def _run(self, request: Frame) -> None:
        def emit(event: TaskEvent) -> None:
            match event:
                case Finished():
                    kind = Kind.LAST
                case Failed():
                    kind = Kind.FAILED
                case _:
                    kind = Kind.EVENT
            # A cancel that came before the runner had the task is seen here, at the first event; a later one finds the runner.
            if self._cancelled == request.serial:
                self._runner.cancel()
            self._send(Frame(kind, request.serial, codec.encode_event(event)))

        try:
            task = codec.decode_run(request.message)
        except QEngineError as error:
            head = codec.decode_run_head(request.message)
            emit(Failed(task=head.task, attempt=head.attempt, epoch=head.epoch, error=error))
            return
        with self._state:
            self._serial = request.serial
        self._runner.run(task, emit)

    def _read(self) -> None:
        while (frame := receive(self._front)) is not None:
            match frame.kind:
                case Kind.RUN:
                    self._requests.put(frame)
                case Kind.CANCEL:
                    with self._state:
                        self._cancelled = frame.serial
                        if self._serial == frame.serial:
                            self._runner.cancel()
                case _:
                    raise ProtocolError(f"the front sent a frame of kind {frame.kind}")
        # Not sys.exit: DuckDB may be in a call that nothing interrupts.
        os._exit(0)

    def _send(self, frame: Frame) -> None:
        try:
            with self._sending:
                send(self._front, frame)
        except OSError:
            os._exit(0)


def limit_address_space(memory_bytes: int) -> None:
    """Let this process grow by `memory_bytes` and some room from what it has now, and no further."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + memory_bytes + memory_bytes // 4 + ROOM_BYTES
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies, where it can (Linux)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    die_with_parent()
    # The front decides when a slot ends; a Ctrl-C on the terminal reaches all processes of the group.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    front = socket.socket(fileno=int(sys.argv[1]))
    settings = WorkerSettings.from_json(sys.argv[2])
    assert settings.work_dir is not None
    slot = Slot(front, settings, settings.work_dir)
    if sys.platform == "linux":
        limit_address_space(settings.memory_bytes)
    slot.serve()


if __name__ == "__main__":
    main()
