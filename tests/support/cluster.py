"""Real clusters on this machine: skies loaded by the loader, queries answered through `qengine.connect`.

This is the only module of the equivalence suite that knows how an engine is started; the suites see `Engine.query`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

import qengine
from qengine.catalog.model import TableKind
from qengine.catalog.registry import Registry
from qengine.loader.load import load
from qengine.loader.request import LoadRequest
from qengine.storage.objects import Store
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


class LocalCluster:
    """Worker processes on loopback and a coordinator in this process, over one store."""

    def __init__(self, connection: object) -> None:
        self._connection = connection

    def query(self, adql: str) -> pa.Table:
        """Answer one ADQL statement."""
        return self._connection.query(adql, lang="adql").to_arrow()  # type: ignore[attr-defined, no-any-return]

    def explain(self, adql: str) -> str:
        """Return the plan as text."""
        return str(self._connection.explain(adql))  # type: ignore[attr-defined]


@contextmanager
def local_cluster(store_root: Path, *, workers: int = 3) -> Iterator[LocalCluster]:
    """Start `workers` worker processes over the store; stop them at the end."""
    with qengine.connect(store_root, workers=workers) as connection:
        yield LocalCluster(connection)
