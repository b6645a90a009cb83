"""What a worker is started with; the front hands it on to its slots."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from qengine.execution.duck import EngineSettings
from qengine.execution.verify import Verify
from qengine.storage.cache import CacheSettings, PartCache
from qengine.transport.tls import TlsFiles

OWN_BYTES = 448 << 20
"""What a slot process takes beside DuckDB: its libraries with the kernel of sky joins (310 MB, much of it shared by all slots),
batches on their way, and the rows of partitions before they are written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """One worker.

    It reads parts below `store_root` and the roots of attached catalogues: those in `attached`, and when `is_attach_open` also
    those that tasks name. `listen` is host:port, port 0 takes a free one. It runs `slots` tasks at once, each in a process of
    `memory_bytes` with a DuckDB of `threads` threads and `temp_bytes` of disk, which has what the process does not need for itself
    (`OWN_BYTES`). `work_dir` keeps spools, temporary files and the
    list of verified parts: a fresh temporary directory if None. `parent_fd` is an inherited pipe whose end means that the parent
    has died. `far` is the address of an object store (`s3://bucket/prefix`): then `store_root` is a cache of its parts, of about
    `cache_bytes`; credentials come from the environment. `drain_s` is how long running attempts may go on after SIGTERM.
    """

    store_root: Path
    worker: str = "worker"
    listen: str = "127.0.0.1:0"
    slots: int = 1
    threads: int = 1
    memory_bytes: int = 2 << 30
    temp_bytes: int = 32 << 30
    attached: tuple[Path, ...] = ()
    is_attach_open: bool = True
    verify: Verify = Verify.OPEN
    work_dir: Path | None = None
    tls: TlsFiles | None = None
    parent_fd: int | None = None
    far: str = ""
    cache_bytes: int = CacheSettings().bytes
    drain_s: float = 30.0

    def engine(self, work_dir: Path) -> EngineSettings:
        memory_bytes = max(self.memory_bytes - OWN_BYTES, self.memory_bytes // 2)
        return EngineSettings(
            threads=self.threads, memory_bytes=memory_bytes, temp_dir=work_dir / "temp", temp_bytes=self.temp_bytes
        )

    def cache(self) -> PartCache | None:
        """Return the cache of a store that is not on this machine."""
        return PartCache(self.store_root, self.far, CacheSettings(bytes=self.cache_bytes)) if self.far else None

    def to_json(self) -> str:
        """Return the settings as one line, for the command line of a process."""
        return json.dumps(asdict(self), default=lambda value: value.value if isinstance(value, Verify) else str(value))

    @classmethod
    def from_json(cls, text: str) -> WorkerSettings:
        values: dict[str, Any] = json.loads(text)
        values["store_root"] = Path(values["store_root"])
        values["attached"] = tuple(Path(root) for root in values["attached"])
        values["verify"] = Verify(values["verify"])
        values["work_dir"] = Path(values["work_dir"]) if values["work_dir"] else None
        if values["tls"]:
            given = values["tls"]
            paths = {f.name: Path(given[f.name]) for f in fields(TlsFiles) if f.name != "peer_name"}
            values["tls"] = TlsFiles(**paths, peer_name=given["peer_name"])
        return cls(**values)
