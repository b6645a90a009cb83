"""Random statements of the forms that the tree of `query_ast` does not have, in the three ways in which a cluster can answer them.

Look at a failure by its seed: `tests.support.wide.wide(seed, sky)`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from qengine.app import ClusterSettings, cluster
from qengine.client.local import LocalClient
from qengine.worker.local import in_process_channel
from tests.support.cluster import EXCHANGE_BYTES, NO_BROADCASTS, LocalCluster, service_settings
from tests.support.oracle import Oracle, UnfairQueryError
from tests.support.sky_builder import Sky
from tests.support.wide import FORMS, wide

ROUNDS = 2
MANY_ROUNDS = 60

MODES = {"default": (None, EXCHANGE_BYTES), "gather": (NO_BROADCASTS, EXCHANGE_BYTES), "exchange": (NO_BROADCASTS, 0)}


@pytest.fixture(scope="module", params=MODES)
def engine(
    request: pytest.FixtureRequest, store_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, LocalCluster]]:
    broadcast, exchange = MODES[request.param]
    work = tmp_path_factory.mktemp("wide")
    channels = [in_process_channel(store_root, worker=f"w{n}", work_dir=work / str(n)) for n in range(2)]
    settings = ClusterSettings(service=service_settings(2, broadcast, exchange_bytes=exchange))
    with LocalClient(cluster(store_root, settings, channels=channels)) as client:
        yield request.param, LocalCluster(client)


def differences(engine: LocalCluster, oracle: Oracle, skies: list[Sky], seeds: range) -> tuple[list[str], int]:
    """Ask the statements of all seeds; return what differs, and how many were asked."""
    found: list[str] = []
    asked = 0
    for seed in seeds:
        statement = wide(seed, skies[seed // len(FORMS) % len(skies)].name)
        try:
            want = oracle.rows(statement.oracle)
        except UnfairQueryError:
            continue
        asked += 1
        try:
            complaint = "" if is_same(engine.query(statement.adql), want) else "other rows"
        except Exception as error:  # any error is a finding
            complaint = f"{type(error).__name__}: {error}"
        if complaint:
            found.append(f"seed {seed} ({statement.form})\n  ADQL    {statement.adql}\n  oracle  {statement.oracle}\n  {complaint}")
    return found, asked


def is_same(got: pa.Table, want: list[tuple[object, ...]]) -> bool:
    """Say whether both have the same rows in any order, doubles to nine digits."""
    rows = [tuple(row.values()) for row in got.to_pylist()]
    if len(rows) != len(want):
        return False
    return all(map(_is_near, sorted(rows, key=_place), sorted(want, key=_place)))


def _place(row: tuple[object, ...]) -> tuple[tuple[bool, float, str], ...]:
    """Where a row is sorted: doubles count by few digits, so that equal rows come to the same place; keys by all of theirs."""
    return tuple(
        (value is None, float(f"{value:.6e}") if isinstance(value, float) else 0.0, "" if isinstance(value, float) else str(value))
        for value in row
    )


def _is_near(one: tuple[object, ...], two: tuple[object, ...]) -> bool:
    def is_near(left: object, right: object) -> bool:
        if isinstance(left, float) and isinstance(right, int | float):
            return math.isclose(left, right, rel_tol=1e-9, abs_tol=1e-7)
        return left == right

    return len(one) == len(two) and all(map(is_near, one, two))


def test_forms_give_the_rows_of_one_database(engine: tuple[str, LocalCluster], oracle: Oracle, skies: list[Sky]) -> None:
    mode, running = engine
    first = len(FORMS) * 1000 * list(MODES).index(mode)
    found, asked = differences(running, oracle, skies, range(first, first + ROUNDS * len(FORMS)))
    assert not found, "\n\n".join(found)
    assert asked > 0.7 * ROUNDS * len(FORMS)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_forms_give_the_rows_of_one_database(engine: tuple[str, LocalCluster], oracle: Oracle, skies: list[Sky]) -> None:
    mode, running = engine
    first = len(FORMS) * (5000 + 1000 * list(MODES).index(mode))
    found, _ = differences(running, oracle, skies, range(first, first + MANY_ROUNDS * len(FORMS)))
    assert not found, f"{len(found)} differences\n\n" + "\n\n".join(found[:10])
