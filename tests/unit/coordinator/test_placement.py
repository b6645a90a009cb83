"""Rendezvous hashing: stable, even, and moving only what must move."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from qengine.coordinator.placement import CHUNK_ORDER, chunks_of, rank_workers
from qengine.plan.physical import WorkerId

CELLS = np.random.default_rng(1).integers(0, 13 * 4**29, 20_000)


def workers(count: int) -> list[WorkerId]:
    return [WorkerId(f"host-{n}:7000") for n in range(count)]


def test_every_task_ranks_all_workers() -> None:
    ranked = rank_workers(CELLS[:100], workers(7))
    assert ranked.shape == (100, 7)
    assert (np.sort(ranked, axis=1) == np.arange(7)).all()
    assert rank_workers(CELLS[:3], workers(1)).tolist() == [[0], [0], [0]]
    assert rank_workers(CELLS[:0], workers(3)).shape == (0, 3)


def test_the_ranking_is_the_same_in_every_version() -> None:
    """Placement outlives processes: caches and replicas lie where it says. A change of these numbers moves everybody's data."""
    cells = np.array([0, 5 << 50, 11 << 57, 12 << 58], dtype=np.int64)
    assert rank_workers(cells, workers(4))[:, 0].tolist() == [1, 2, 2, 2]


def test_cells_of_one_chunk_stay_together() -> None:
    first = 77 << (2 * (29 - CHUNK_ORDER))
    cells = np.array([first, first + 1, first + (1 << 40), first + (1 << 48) - 1], dtype=np.int64)
    assert len(set(chunks_of(cells).tolist())) == 1
    assert len({tuple(row) for row in rank_workers(cells, workers(9)).tolist()}) == 1


def test_chunks_are_spread_evenly() -> None:
    counts = np.bincount(rank_workers(CELLS, workers(10))[:, 0], minlength=10)
    assert counts.min() > 1600
    assert counts.max() < 2400


@given(st.integers(2, 12), st.data())
def test_losing_a_worker_moves_only_its_chunks(count: int, data: st.DataObject) -> None:
    everybody = workers(count)
    lost = data.draw(st.sampled_from(everybody))
    rest = data.draw(st.permutations([worker for worker in everybody if worker != lost]))
    before = [everybody[i] for i in rank_workers(CELLS[:500], everybody)[:, 0]]
    second = [everybody[i] for i in rank_workers(CELLS[:500], everybody)[:, 1]]
    after = [rest[i] for i in rank_workers(CELLS[:500], rest)[:, 0]]
    assert all(new == (next_one if old == lost else old) for old, next_one, new in zip(before, second, after, strict=True))
