"""Real clusters on this machine: skies loaded by the loader, queries answered by the composition root.

This is the only module of the equivalence suite that knows how an engine is started; the suites see `Engine.query`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from qengine.app import ClusterSettings, cluster
from qengine.catalog.model import TableKind
from qengine.catalog.registry import Registry
from qengine.client.local import LocalClient
from qengine.coordinator.service import ServiceSettings
from qengine.loader.load import load
from qengine.loader.request import LoadRequest
from qengine.plan.broadcast import BroadcastLimits
from qengine.plan.cost import CostModel
from qengine.storage.objects import Store
from qengine.transport.channel import WorkerChannel
from qengine.worker.local import in_process_channel
from tests.support.sky_builder import Sky, SkyTable


def load_skies(root: Path, skies: Iterable[Sky]) -> Path:
    """Load every table of every sky into a new store under `root` and return the store's path."""
    store_root = root / "store"
    store_root.mkdir(parents=True)
    store = Store(store_root)
    registry = Registry.open(store_root)
    for sky in skies:
        for table in sky.tables:
            report = load(_request(root / "input", sky, table), registry, store)
            assert report.stored == table.rows.num_rows, report.to_text()
    return store_root


def _request(folder: Path, sky: Sky, table: SkyTable) -> LoadRequest:
    """Write the rows as two Parquet files and ask for their load."""
    folder = folder / sky.name / table.name
    folder.mkdir(parents=True)
    half = table.rows.num_rows // 2
    for number, rows in enumerate((table.rows.slice(0, half), table.rows.slice(half))):
        pq.write_table(rows, folder / f"{number}.parquet")
    return LoadRequest(
        inputs=(folder,),
        catalog=sky.name,
        table=table.name,
        kind=TableKind(table.kind),
        key=table.key,
        ra=table.ra,
        dec=table.dec,
        director=table.director,
        director_key=table.director_key,
        rows_per_tile=sky.rows_per_tile,
        margin_arcsec=sky.margin_arcsec,
        workers=1,
    )


EXCHANGE_BYTES = CostModel().exchange_bytes

NO_BROADCASTS = BroadcastLimits(estimated_bytes=-1)
"""In a small sky everything is small: without this hardly anything would be gathered or exchanged."""


def service_settings(
    tasks_per_slot: int, broadcast: BroadcastLimits | None = None, *, exchange_bytes: int = EXCHANGE_BYTES
) -> ServiceSettings:
    """Settings under which even tables of a hundred rows are cut into many tasks."""
    return ServiceSettings(
        deadline_s=60,
        cost=CostModel(min_task_s=1e-9, tasks_per_slot=tasks_per_slot, exchange_bytes=exchange_bytes),
        broadcast=broadcast or BroadcastLimits(),
    )


class LocalCluster:
    """A coordinator in this process, over one store and some workers."""

    def __init__(self, client: LocalClient) -> None:
        self._client = client

    def query(self, adql: str) -> pa.Table:
        """Answer one ADQL statement."""
        return self._client.query(adql, lang="adql").to_arrow()

    def explain(self, adql: str) -> str:
        """Return the plan as text."""
        return self._client.explain(adql).to_text()


@contextmanager
def grpc_cluster(
    store_root: Path,
    *,
    workers: int = 3,
    tasks_per_slot: int = 4,
    broadcast: BroadcastLimits | None = None,
    exchange_bytes: int = EXCHANGE_BYTES,
) -> Iterator[LocalCluster]:
    """Start `workers` worker processes over the store, reached by gRPC on loopback; stop them at the end."""
    service = service_settings(tasks_per_slot, broadcast, exchange_bytes=exchange_bytes)
    settings = ClusterSettings(workers=workers, service=service)
    with LocalClient(cluster(store_root, settings)) as client:
        yield LocalCluster(client)


@contextmanager
def in_process_cluster(
    store_root: Path, work_dir: Path, *, wrap: Callable[[WorkerChannel], WorkerChannel] = lambda channel: channel
) -> Iterator[LocalCluster]:
    """Two workers in threads of this process, one task per tile; `wrap` may put a faulty channel in front of each."""
    channels = [wrap(in_process_channel(store_root, worker=f"local{n}", slots=1, work_dir=work_dir / str(n))) for n in range(2)]
    settings = ClusterSettings(service=service_settings(1000))
    with LocalClient(cluster(store_root, settings, channels=channels)) as client:
        yield LocalCluster(client)
