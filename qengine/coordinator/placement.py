"""Which worker should run a task: rendezvous hashing of chunks over workers.

The unit of placement is the chunk: the ancestor, at one fixed order for the whole cluster, of the cell where a task begins. So
the tasks of all tables of a family, and of all queries, that touch the same piece of sky go to the same worker, whose page cache
has it, even when tiles split. Every pair (chunk, worker) gets a hash, and the workers of a chunk are ranked by it: losing or
adding a worker moves only the chunks that it has or gets, and a retry goes to the next in the ranking. Hashes depend on names and
numbers only, so every coordinator in every process ranks alike.

The ranking is a preference. All workers read the same store, and `backlog` lets an idle worker take another's task.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from qengine.plan.physical import WorkerId

CHUNK_ORDER = 5
"""12,288 chunks of about 1.8 degrees: enough for an even spread over hundreds of workers, coarse enough to hold whole tiles."""

_CELL_ORDER = 29


def chunks_of(cells: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the chunk that holds each cell (order 29, cells beyond the sky included)."""
    return cells >> (2 * (_CELL_ORDER - CHUNK_ORDER))


def rank_workers(cells: npt.NDArray[np.int64], workers: Sequence[WorkerId]) -> npt.NDArray[np.int32]:
    """Rank all workers for each task.

    Parameters
    ----------
    cells
        The first cell of each task.
    workers
        Names of the workers; their order does not matter for who is ranked first.

    Returns
    -------
    Array of shape (tasks, workers): indexes into `workers`, best first.
    """
    if len(workers) == 1:
        return np.zeros((len(cells), 1), dtype=np.int32)
    chunks, inverse = np.unique(chunks_of(np.asarray(cells, dtype=np.int64)), return_inverse=True)
    names = np.array([_name_hash(worker) for worker in workers], dtype=np.uint64)
    scores = _mix(_mix(chunks.astype(np.uint64))[:, None] ^ names[None, :])
    order = np.argsort(scores, axis=1, kind="stable")[:, ::-1].astype(np.int32)
    ranked: npt.NDArray[np.int32] = order[inverse]
    return ranked


def _name_hash(worker: WorkerId) -> int:
    return int.from_bytes(blake2b(worker.encode(), digest_size=8).digest(), "little")


def _mix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finaliser of splitmix64: every bit of the input reaches every bit of the output."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
