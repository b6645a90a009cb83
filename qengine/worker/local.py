"""Makes a worker out of threads of this process: an `InProcessChannel` whose runners share a verifier and a spool."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path

from qengine.execution.duck import EngineSettings
from qengine.execution.runner import TaskRunner
from qengine.execution.spool import Spool
from qengine.execution.verify import PartVerifier, Verify
from qengine.plan.physical import WorkerId
from qengine.sql.macros import MACROS
from qengine.storage.cache import PartCache
from qengine.transport.inprocess import InProcessChannel


def in_process_channel(
    store_root: Path,
    *,
    worker: str = "local",
    slots: int = 1,
    threads: int = 1,
    memory_bytes: int = 2 << 30,
    attached: Sequence[Path] = (),
    verify: Verify = Verify.OPEN,
    work_dir: Path | None = None,
    cache: PartCache | None = None,
) -> InProcessChannel:
    """Return a channel to `slots` threads of this process, each with its own DuckDB of `threads` threads and `memory_bytes`.

    `work_dir` keeps spools, DuckDB's temporary files and the list of verified parts; a fresh temporary directory if None.
    `cache` has the parts of an object store, below `store_root`.
    """
    root = Path(tempfile.mkdtemp(prefix="qengine-")) if work_dir is None else work_dir
    root.mkdir(parents=True, exist_ok=True)
    spool = Spool(root / f"spool-{worker}")
    verifier = PartVerifier(when=verify, stamps=root / "verified")
    settings = EngineSettings(threads=threads, memory_bytes=memory_bytes, temp_dir=root / "temp", macros=MACROS)

    def make_runner() -> TaskRunner:
        return TaskRunner(store_root, settings, verifier=verifier, spool=spool, attached=attached, cache=cache)

    channel = InProcessChannel(WorkerId(worker), make_runner, spool, slots=slots, store=store_root)
    if work_dir is None:
        weakref.finalize(channel, shutil.rmtree, root, ignore_errors=True)
    return channel
