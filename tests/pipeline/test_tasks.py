"""Tables of a small real pipeline are contributed and committed by its own tasks."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lsst.daf.butler import Butler
from lsst.pipe.base import Pipeline
from lsst.pipe.base.simple_pipeline_executor import SimplePipelineExecutor

from qengine.catalog.loads import LoadState
from qengine.catalog.model import TableKind, TableSnapshot
from qengine.catalog.registry import Registry
from qengine.errors import InputError
from qengine.loader.receipt import Receipt
from qengine.loader.request import OnDuplicate
from qengine.loader.sources.butler import ButlerQuery, find_datasets
from qengine.pipeline.commit import CatalogCommitConfig, CatalogCommitTask
from qengine.pipeline.config import to_request
from qengine.pipeline.contribute import CatalogContributeTask
from qengine.pipeline.gather import load_id
from qengine.storage.objects import Store
from tests.support.butler_repo import SKYMAP, make_repo, objects, put

PIPELINE = """
description: objects and their sources into a catalogue
tasks:
  contributeObject:
    class: qengine.pipeline.contribute.CatalogContributeTask
    config:
      connections.inputName: object
      storageClass: ArrowTable
      load.catalog: dp1
      load.table: Object
      load.key: objectId
      load.rowsPerTile: 40
  contributeSource:
    class: qengine.pipeline.contribute.CatalogContributeTask
    config:
      connections.inputName: source
      storageClass: ArrowTable
      load.catalog: dp1
      load.table: Source
      load.kind: child
      load.director: Object
      load.directorKey: objectId
  commitCatalog:
    class: qengine.pipeline.commit.CatalogCommitTask
    config:
      store: {store}
      receipts: [object_qengine_receipt, source_qengine_receipt]
"""


def sources(tract: int) -> pa.Table:
    keys = [key for key in objects(tract)["objectId"].to_pylist() for _ in range(3)]
    return pa.table(
        {"sourceId": [tract * 10_000 + i for i in range(len(keys))], "objectId": keys, "flux": [float(i) for i in range(len(keys))]}
    )


class Site:
    """A repository with three tracts, a store, and a way to run the pipeline."""

    def __init__(self, root: Path) -> None:
        logging.getLogger("lsst").setLevel(logging.ERROR)
        self.repo = make_repo(root / "repo")
        self.store = Store(root / "store")
        self.pipeline = root / "load.yaml"
        self.pipeline.write_text(PIPELINE.replace("{store}", str(self.store.root)))
        for tract in range(3):
            self.put(tract, "run1")

    def put(self, tract: int, run: str, shift: float = 0.0) -> None:
        put(self.repo, run, tract, objects(tract, shift=shift))
        put(self.repo, run, tract, sources(tract), name="source")

    def run(self, output: str, where: str, *inputs: str, run: str = "") -> Butler:
        butler = SimplePipelineExecutor.prep_butler(str(self.repo), inputs=list(inputs), output=output, output_run=run or None)
        executor = SimplePipelineExecutor.from_pipeline(
            Pipeline.fromFile(str(self.pipeline)), where=f"skymap = '{SKYMAP}' AND {where}", butler=butler
        )
        executor.run(register_dataset_types=True)
        return butler

    def table(self, name: str) -> TableSnapshot:
        with Registry.open(self.store.root) as registry:
            found = registry.catalog().find("dp1", name)
        assert found is not None
        return found

    def rows(self, name: str) -> pa.Table:
        found = self.table(name)
        uris = [*found.home.uri.to_pylist(), *found.orphan.uri.to_pylist()]
        return pa.concat_tables(pq.read_table(self.store.path(uri)).replace_schema_metadata(None) for uri in uris)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def query(site: Site, run: str, tract: int) -> ButlerQuery:
    where = f"skymap = '{SKYMAP}' AND tract = {tract}"
    return ButlerQuery(repo=str(site.repo), collections=(run,), dataset_type="object", where=where)


def report_of(butler: Butler, collection: str) -> dict[str, Any]:
    found: dict[str, Any] = butler.get("catalog_qengine_commit", collections=collection)
    return found


def test_a_pipeline_publishes_two_tables_as_one_load_of_its_run(site: Site) -> None:
    butler = site.run("u/load", "tract IN (0..1)", "run1", run="u/load/1")
    report = report_of(butler, "u/load/1")
    assert (report["load"], report["snapshot"], report["run"]) == (load_id("u/load/1"), 1, "u/load/1")
    assert {table["table"]: table["stored"] for table in report["tables"]} == {"Object": 100, "Source": 300}
    wanted = pa.concat_tables([objects(0), objects(1)]).sort_by("objectId")
    assert site.rows("Object").sort_by("objectId").select(wanted.schema.names).to_pydict() == wanted.to_pydict()
    assert site.rows("Source").num_rows == 300
    assert (site.table("Object").number, site.table("Source").number) == (1, 1)

    # what the Butler keeps of the tasks
    receipt = Receipt.from_json(butler.get("object_qengine_receipt", skymap=SKYMAP, tract=1, collections="u/load/1"))
    [dataset] = find_datasets(query(site, "run1", 1))
    [one] = receipt.inputs
    assert (one.label, one.version, one.uri, one.rows) == (dataset.label, dataset.version, dataset.uri, 50)
    config = butler.get("commitCatalog_config", collections="u/load/1")
    assert list(config.receipts) == ["object_qengine_receipt", "source_qengine_receipt"]
    metadata = butler.get("contributeObject_metadata", skymap=SKYMAP, tract=1, collections="u/load/1")
    assert metadata["contributeObject"]["rows"] == 50
    assert butler.get("packages", collections="u/load/1")

    # and what the catalogue keeps of its inputs
    with Registry.open(site.store.root) as registry:
        [load] = registry.loads()
        assert (load.id, load.state, load.context["run"]) == (report["load"], LoadState.FINISHED, "u/load/1")
        known = {(each.table, each.label): each for each in registry.inputs("dp1")}
    assert known["Object", dataset.label].version == dataset.version
    assert known["Object", dataset.label].sha256 == one.sha256


def test_running_the_commit_again_publishes_nothing_twice(site: Site) -> None:
    site.run("u/load", "tract = 0", "run1", run="u/load/1")
    butler = Butler.from_config(str(site.repo), writeable=True, run="u/load/1")
    first = report_of(butler, "u/load/1")
    [ref] = butler.query_datasets("catalog_qengine_commit", collections="u/load/1")
    butler.pruneDatasets([ref], purge=True, unstore=True, disassociate=True)
    again = _commit_again(site, butler)
    assert (again["load"], again["snapshot"]) == (first["load"], first["snapshot"])
    with Registry.open(site.store.root) as registry:
        assert [load.state for load in registry.loads()] == [LoadState.FINISHED]
        assert registry.snapshot_number("dp1") == 1


def test_a_tract_that_was_made_again_replaces_its_rows_and_their_children(site: Site) -> None:
    site.run("u/load", "tract IN (0..2)", "run1", run="u/load/1")
    site.put(1, "run2", shift=1.0)
    butler = site.run("u/again", "tract = 1", "run2", "run1", run="u/again/1")
    report = report_of(butler, "u/again/1")
    assert (report["snapshot"], {table["table"]: table["stored"] for table in report["tables"]}) == (
        2,
        {"Object": 50, "Source": 150},
    )
    wanted = pa.concat_tables([objects(0), objects(1, shift=1.0), objects(2)]).sort_by("objectId")
    assert site.rows("Object").sort_by("objectId").select(wanted.schema.names).to_pydict() == wanted.to_pydict()
    children = site.rows("Source").sort_by("sourceId")
    assert children["sourceId"].to_pylist() == sorted(key for tract in range(3) for key in sources(tract)["sourceId"].to_pylist())


def _commit_again(site: Site, butler: Butler) -> dict[str, Any]:
    config = CatalogCommitConfig()
    config.store = str(site.store.root)
    receipts = [
        Receipt.from_json(butler.get(ref))
        for name in ("object", "source")
        for ref in butler.query_datasets(f"{name}_qengine_receipt", collections="u/load/1")
    ]
    found: dict[str, Any] = CatalogCommitTask(config=config).run(receipts=receipts, outputRun="u/load/1").report
    return found


def test_a_task_that_cannot_read_its_table_fails_and_nothing_is_published(site: Site) -> None:
    [dataset] = find_datasets(query(site, "run1", 1))
    path = Path(dataset.uri)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(InputError, match=r"object_1_.*not a readable Parquet file"):
        site.run("u/load", "tract IN (0..1)", "run1", run="u/load/1")
    assert not (site.store.root / "dp1").exists()


def test_configurations_are_checked() -> None:
    config = CatalogContributeTask.ConfigClass()
    config.load.table = "Object"
    with pytest.raises(ValueError, match=r"load\.catalog is not set"):
        config.validate()
    config.load.catalog = "dp1"
    config.load.kind = "child"
    config.load.onDuplicate = "replace"
    config.validate()
    request = to_request(config.load)
    assert (request.catalog, request.table, request.kind, request.on_duplicate) == (
        "dp1",
        "Object",
        TableKind.CHILD,
        OnDuplicate.REPLACE,
    )


@pytest.mark.parametrize(
    ("dimensions", "words"), [(("skymap", "tract", "patch"), "tract, patch"), (("instrument", "visit"), "visit")]
)
def test_connections_have_the_dimensions_of_the_configuration(dimensions: tuple[str, ...], words: str) -> None:
    config = CatalogContributeTask.ConfigClass()
    config.dimensions = list(dimensions)
    config.connections.inputName = "source"
    connections = config.ConnectionsClass(config=config)
    assert connections.dimensions == set(dimensions), words
    assert (connections.table.name, connections.receipt.name) == ("source", "source_qengine_receipt")
    assert tuple(connections.table.dimensions) == tuple(connections.receipt.dimensions) == dimensions
