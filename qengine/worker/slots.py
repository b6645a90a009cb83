"""The slot processes of a worker, as its front sees them: started, given work, killed, replaced.

A pool keeps one process more than it has slots: the warm spare takes over at once when a slot is killed, and computes beside the
others when a small query would have to wait for long ones. Who computes is decided by `transport.turns`. A slot that dies, in work
or idle, is replaced in the background.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from qengine.errors import ConfigError, WorkerLostError
from qengine.execution.duck import temp_dir_of
from qengine.transport.turns import Turn, Turns
from qengine.worker.frames import Frame, Kind, read_frame, write_frame
from qengine.worker.settings import WorkerSettings

_READ_AHEAD = 8 << 20
_READY_S = 60.0
_FRUGAL = {
    "ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(128 << 20), "MALLOC_TOP_PAD_": str(16 << 20),
}  # fmt: skip
"""Without the first two a slot reserves 1.2 GB of addresses that it never uses (Arrow's mimalloc, one arena of malloc per thread),
and its limit on the address space would have to be that much looser. The others let it keep up to 128 MB that it has freed: else
every column of every batch is new memory, which the kernel must clear (134 thousand page faults instead of 11 thousand in a
cross-match of 2e7 x 5e6 rows; 2.4 s become 2.0 s with two slots at work)."""

_RESTART_S = (0.0, 0.2, 1.0, 5.0)


class SlotProcess:
    """One process that computes one attempt at a time."""

    def __init__(self, process: subprocess.Popen[bytes], source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        self._process = process
        self._source = source
        self._sink = sink
        self._frames: asyncio.Queue[Frame | None] = asyncio.Queue()
        self._reading: asyncio.Task[None] | None = None
        self.is_dead = False

    @classmethod
    async def start(cls, settings: WorkerSettings, work_dir: Path) -> SlotProcess:
        """Start a process and wait until it can take work. Raise `WorkerLostError` if it does not come up."""
        ours, theirs = socket.socketpair()
        with theirs:
            given = replace(settings, work_dir=work_dir, parent_fd=None).to_json()
            command = [sys.executable, "-m", "qengine.worker.slot", str(theirs.fileno()), given]
            environment = {**os.environ, **_FRUGAL}
            process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env=environment)
        source, sink = await asyncio.open_unix_connection(sock=ours, limit=_READ_AHEAD)
        slot = cls(process, source, sink)
        try:
            async with asyncio.timeout(_READY_S):
                first = await read_frame(source)
        except TimeoutError:
            first = None
        except BaseException:
            await slot.kill()
            raise
        if first is None or first.kind is not Kind.READY:
            await slot.kill()
            raise WorkerLostError(f"a slot process does not start: {slot.epitaph}", hint="its error is on standard error")
        return slot

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def epitaph(self) -> str:
        """How the process ended, in words."""
        code = self._process.poll()
        if code is None:
            return "it runs"
        if code < 0:
            return f"killed by signal {signal.Signals(-code).name}"
        return f"ended with status {code}"

    def watch(self, on_death: Callable[[SlotProcess], None]) -> None:
        """Begin to read frames; `on_death` is called once, when the process is gone."""

        async def read() -> None:
            while (frame := await read_frame(self._source)) is not None:
                self._frames.put_nowait(frame)
            self.is_dead = True
            await self.kill()
            self._frames.put_nowait(None)
            on_death(self)

        self._reading = asyncio.create_task(read())

    def run(self, serial: int, request: bytes) -> None:
        """Begin an attempt; its frames come from `next_frame`."""
        write_frame(self._sink, Frame(Kind.RUN, serial, request))

    def cancel(self, serial: int) -> None:
        """Ask for the end of an attempt; it still ends with a LAST or FAILED frame."""
        if not self._sink.is_closing():
            write_frame(self._sink, Frame(Kind.CANCEL, serial, b""))

    async def next_frame(self, serial: int) -> Frame | None:
        """Return the attempt's next frame; None when the process is dead."""
        while (frame := await self._frames.get()) is not None:
            if frame.serial == serial:
                return frame
        return None

    async def kill(self) -> None:
        """End the process, whatever it does, and reap it."""
        self.is_dead = True
        self._process.kill()
        await asyncio.to_thread(self._process.wait)
        self._sink.close()

    async def close(self) -> None:
        await self.kill()
        if self._reading is not None:
            self._reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reading


class SlotPool:
    """`settings.slots` slots and a spare."""

    def __init__(self, settings: WorkerSettings, work_dir: Path) -> None:
        self._settings = settings
        self._work_dir = work_dir
        self._turns = Turns(settings.slots)
        self._taken: dict[SlotProcess, Turn] = {}
        self._idle: asyncio.LifoQueue[SlotProcess] = asyncio.LifoQueue()
        self._slots: set[SlotProcess] = set()
        self._starting: set[asyncio.Task[None]] = set()
        self._is_closed = False

    @property
    def pids(self) -> tuple[int, ...]:
        return tuple(slot.pid for slot in self._slots)

    async def start(self) -> None:
        """Start all slots; return when the first can take work. Raise `ConfigError` if it cannot start."""
        try:
            await self._add()
        except WorkerLostError as error:
            raise ConfigError(f"the worker cannot start: {error.message}", hint=error.hint) from error
        for _ in range(self._settings.slots):
            self._replace()

    async def take(self, *, is_scan: bool) -> SlotProcess:
        """Wait for a free slot. Raise `WorkerLostError` if it is our turn and no process comes up."""
        turn = self._turns.ask(is_scan=is_scan)
        try:
            await turn.granted.wait()
            async with asyncio.timeout(_READY_S):
                while (slot := await self._idle.get()).is_dead:
                    pass
        except TimeoutError as error:
            self._turns.end(turn)
            raise WorkerLostError(
                f"worker {self._settings.worker} has no slot process", hint="why it does not start is on its standard error"
            ) from error
        except BaseException:
            self._turns.end(turn)
            raise
        self._taken[slot] = turn
        return slot

    def give_back(self, slot: SlotProcess) -> None:
        """Return a slot that has ended its attempt, or that is dead."""
        turn = self._taken.pop(slot)
        if not slot.is_dead:
            self._idle.put_nowait(slot)
        self._turns.end(turn)

    async def close(self) -> None:
        """Kill all processes."""
        self._is_closed = True
        for starting in list(self._starting):
            starting.cancel()
        if self._starting:
            await asyncio.wait(self._starting)
        for slot in list(self._slots):
            await slot.close()

    async def _add(self) -> None:
        slot = await SlotProcess.start(self._settings, self._work_dir)
        self._slots.add(slot)
        slot.watch(self._on_death)
        self._idle.put_nowait(slot)

    def _on_death(self, slot: SlotProcess) -> None:
        self._slots.discard(slot)
        # A killed process leaves what it had spilled.
        left = temp_dir_of(self._settings.engine(self._work_dir).temp_dir or self._work_dir, slot.pid)
        for path in left.parent.glob(f"{left.name}*"):
            shutil.rmtree(path, ignore_errors=True)
        if not self._is_closed:
            self._replace()

    def _replace(self) -> None:
        task = asyncio.create_task(self._restart())
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    async def _restart(self) -> None:
        tries = 0
        while True:
            await asyncio.sleep(_RESTART_S[min(tries, len(_RESTART_S) - 1)])
            tries += 1
            began = time.monotonic()
            try:
                await self._add()
                return
            except WorkerLostError as error:
                print(f"qengine worker: {error} ({time.monotonic() - began:.1f} s)", file=sys.stderr, flush=True)
