"""What travels to workers: tasks, their inputs, and the events that come back.

This is the only module of `plan` that a worker imports. It knows neither SQL trees nor catalogues: a task carries finished
SQL text over named inputs, and the parts that each input reads.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NewType

import pyarrow as pa

from qengine.errors import QEngineError

QueryId = NewType("QueryId", str)
WorkerId = NewType("WorkerId", str)

PROTOCOL_VERSION = 3
"""Raised whenever a message changes its meaning; coordinator and worker refuse each other when it differs."""


@dataclass(frozen=True, slots=True)
class TaskId:
    """Names a task for ever: task `number` of `fragment` of `query`. An attempt is (TaskId, attempt, epoch)."""

    query: QueryId
    fragment: int
    number: int

    def __str__(self) -> str:
        return f"{self.query}/{self.fragment}/{self.number}"


SHARED = "shared:"
"""What the `uri` of a relation begins with that the coordinator puts on the workers for one query; its name follows."""


EXCHANGE = "exchange:"
"""What the `uri` of a partition begins with; `<name>@<address of the worker that has it>` follows."""

PARTITION = "qe partition"
"""Column with the number of the partition, the last one of rows of a partitioned task that are sent inline."""


@dataclass(frozen=True, slots=True)
class PartRef:
    """One Parquet file. `uri` is relative to the worker's store, or absolute, or names a relation that was put on the worker for
    this query (`SHARED`), or a partition that a worker wrote (`EXCHANGE`). `digest` is the sha256 of its bytes in hexadecimal
    (empty: unverified), `rows` what its footer must say, `bytes` its size (for a shared relation only an estimate)."""

    digest: str
    uri: str
    rows: int
    bytes: int


def partition_of(part: PartRef) -> tuple[str, str] | None:
    """Return (name, address) if the reference is to a partition."""
    if not part.uri.startswith(EXCHANGE):
        return None
    name, _, address = part.uri.removeprefix(EXCHANGE).partition("@")
    return name, address


def shared_part(name: str, table: pa.Table) -> PartRef:
    """Return the reference to a relation that the coordinator puts on the workers."""
    return PartRef(digest="", uri=f"{SHARED}{name}", rows=table.num_rows, bytes=table.nbytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskInput:
    """One named relation of a task's SQL.

    The relation holds the rows of `parts` whose `line_column` lies in one of `ranges` (half-open, sorted, disjoint; empty means
    all rows), and the rows of `margin_parts` that are *not* in `ranges`, each cell's rows taken from one margin part only
    (tiles that meet share margin rows). Margin parts are only given together with ranges. `columns` are the columns that the
    SQL uses, in the order in which the relation has them. Floats named in `nan_columns` read NaN as NULL. `types` are DuckDB's
    type names of `columns`; an input without any parts needs them, because it is an empty relation that still has its columns.
    """

    name: str
    parts: tuple[PartRef, ...]
    columns: tuple[str, ...]
    ranges: tuple[tuple[int, int], ...] = ()
    margin_parts: tuple[PartRef, ...] = ()
    nan_columns: tuple[str, ...] = ()
    line_column: str = "_healpix_29"
    types: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SkyJoin:
    """Relations of candidate pairs that the worker's kernel makes before the task's SQL runs (`qengine.execution.skyjoin`).

    `first` and `second` are SELECTs over the task's inputs. Their columns that begin with `SKY_COLUMN` are for the kernel:
    `qe lon`, `qe lat` (DOUBLE, degrees), perhaps `qe line` (cell of that position), `qe key` (BIGINT) and, on one side,
    `qe radius` (DOUBLE, degrees, instead of `radius_deg`). All others go into the relation `name`, which holds every pair
    closer than the radius whose keys compare as `comparison` says (`<`, `>`, `<>`, or empty), and possibly a few more: the SQL
    repeats the exact tests.

    If `is_wide` it has both sides' columns, named `0 <column>` and `1 <column>`. Otherwise it has the second's columns under
    their own names and `qe row`, the number of the first's row; and the relation `<name> rows` holds the first's rows with
    their `qe row`. With `has_distance` the relation `name` also has `qe distance`, the distance of both places in degrees.
    """

    name: str
    first: str
    second: str
    radius_deg: float
    comparison: str = ""
    is_wide: bool = False
    has_distance: bool = False

    @property
    def rows_name(self) -> str:
        """Name of the relation of the first's rows."""
        return f"{self.name} rows"


SKY_COLUMN = "qe "
"""How the names of columns begin that only the kernel reads."""

DISTANCE_COLUMN = "qe distance"
"""The kernel's distances in a relation of pairs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskLimits:
    """`deadline_s` counts from the start of the attempt on the worker. `hold_bytes` is how much of a result a worker sends inline;
    beyond that it spools to disk and sends a digest."""

    deadline_s: float = 3600.0
    memory_bytes: int = 2 << 30
    result_bytes: int = 64 << 30
    hold_bytes: int = 32 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Partitioning:
    """How the rows of a task fall into `count` partitions: by the hash of columns, each cast to a DuckDB type in which values that
    have to meet are equal. A result of more than `threshold_bytes` is written to files, one per partition that has rows."""

    keys: tuple[tuple[str, str], ...]
    count: int
    threshold_bytes: int


@dataclass(frozen=True, slots=True)
class Partition:
    """The rows of one partition that an attempt wrote: a Parquet file, known by `name` on the worker that has it. The name begins
    with the xxh3-128 of the file."""

    number: int
    name: str
    rows: int
    bytes: int

    def at(self, address: str) -> PartRef:
        """Return the reference for tasks that read it, when the worker is at `address`."""
        return PartRef(digest="", uri=f"{EXCHANGE}{self.name}@{address}", rows=self.rows, bytes=self.bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One attempt at a unit of work: `sql` (one SELECT, rendered by us) over `inputs`.

    `epoch` is the coordinator's; a worker and a coordinator ignore messages of an older one. A worker starts whatever else waits
    before a task that `is_scan`, and leaves one of several slots to others.
    """

    id: TaskId
    attempt: int
    epoch: int
    sql: str
    inputs: tuple[TaskInput, ...]
    limits: TaskLimits = field(default_factory=TaskLimits)
    sky_joins: tuple[SkyJoin, ...] = ()
    partition: Partitioning | None = None
    is_scan: bool = False

    @property
    def input_bytes(self) -> int:
        return sum(part.bytes for i in self.inputs for part in (*i.parts, *i.margin_parts))


# -- events: a closed union; `match` and `assert_never` -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The attempt runs on a slot."""

    task: TaskId
    attempt: int
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A sign of life at least every second; `fraction` of the work done in 0..1, as far as DuckDB knows."""

    task: TaskId
    attempt: int
    epoch: int
    fraction: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Rows of an attempt. They count only once the attempt has `Finished`."""

    task: TaskId
    attempt: int
    epoch: int
    rows: pa.RecordBatch


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskStats:
    """What an attempt did. `spool` is the digest under which the worker keeps the rows when they were not sent inline, `partitions`
    are the files in which it keeps them when they were partitioned."""

    rows: int
    result_bytes: int
    input_bytes: int
    elapsed_s: float
    cpu_s: float
    spool: str = ""
    partitions: tuple[Partition, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The attempt is complete; its batches (or its spool) are the whole result."""

    task: TaskId
    attempt: int
    epoch: int
    stats: TaskStats


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The attempt is over and none of its rows count."""

    task: TaskId
    attempt: int
    epoch: int
    error: QEngineError


TaskEvent = Started | Progress | Batch | Finished | Failed
