"""Tables of a real Data Butler as inputs."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import pyarrow as pa
import pytest

from qengine.errors import ConfigError, InputError
from qengine.loader.sources.butler import ButlerQuery, find_datasets, open_datasets, pending
from qengine.loader.sources.open import reopen
from tests.support.butler_repo import make_repo, objects, put, writing


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tracts 0 to 2 in run1, tract 1 again in run2."""
    logging.getLogger("lsst").setLevel(logging.ERROR)
    root = make_repo(tmp_path_factory.mktemp("butler") / "repo")
    for tract in range(3):
        put(root, "run1", tract, objects(tract))
    put(root, "run2", 1, objects(1, 60, shift=1.0))
    return root


def query(root: Path, *collections: str, where: str = "", dataset_type: str = "object") -> ButlerQuery:
    return ButlerQuery(repo=str(root), collections=collections, dataset_type=dataset_type, where=where)


def test_datasets_of_collections_in_order(repo: Path) -> None:
    first = find_datasets(query(repo, "run1"))
    assert [each.label for each in first] == [f'object {{"skymap": "map", "tract": {n}}}' for n in range(3)]
    both = find_datasets(query(repo, "run2", "run1"))
    assert [each.run for each in both] == ["run1", "run2", "run1"]
    assert [a.version == b.version for a, b in zip(first, both, strict=True)] == [True, False, True]
    assert pending(both, {each.label: each.version for each in first}) == (both[1],)
    assert [each.label for each in find_datasets(query(repo, "run1", where="skymap = 'map' AND tract IN (1..2)"))] == [
        each.label for each in first[1:]
    ]
    # what the collections leave no choice of need not be said
    assert [each.label for each in find_datasets(query(repo, "run2", "run1", where="tract = 1"))] == [first[1].label]
    assert len(find_datasets(query(repo, "run1", where="skymap = 'map' AND tract.region OVERLAPS POINT(2.5, 0.5)"))) == 1


def test_sources_read_the_files_where_they_lie(repo: Path) -> None:
    found = find_datasets(query(repo, "run2", "run1"))
    sources = open_datasets(found)
    assert [source.rows for source in sources] == [50, 60, 50]
    one = sources[1]
    assert (one.identity.label, one.identity.kind, one.version()) == (found[1].label, "butler", found[1].version)
    assert Path(one.identity.uri).is_relative_to(repo)
    assert one.sha256() == hashlib.sha256(Path(one.identity.uri).read_bytes()).hexdigest()
    rows = pa.Table.from_batches(list(one.batches(one.schema.names)))
    assert rows.equals(objects(1, 60, shift=1.0))
    again = reopen(one.recipe)
    assert (again.identity, again.version()) == (one.identity, one.version())


@pytest.mark.parametrize("storage", ["DataFrame", "ArrowAstropy"])
def test_storage_classes(repo: Path, storage: str) -> None:
    put(repo, f"run_{storage}", 0, objects(0), name=f"object_{storage}", storage=storage)
    [source] = open_datasets(find_datasets(query(repo, f"run_{storage}", dataset_type=f"object_{storage}")))
    assert pa.Table.from_batches(list(source.batches(source.schema.names))).to_pydict() == objects(0).to_pydict()
    unit = (source.schema.field("ra").metadata or {}).get(b"unit")
    assert unit == (b"deg" if storage == "ArrowAstropy" else None)


@pytest.mark.parametrize(
    ("collections", "words", "message"),
    [
        (("run1",), {"where": "skymap = 'map' AND tract = 3"}, "nothing was found"),
        (("nowhere",), {}, "nowhere"),
        (("run1",), {"dataset_type": "nothing"}, "nothing"),
        (("run1",), {"where": "tract = = 3"}, "Failed to parse|expression"),
    ],
)
def test_queries_that_find_nothing(repo: Path, collections: tuple[str, ...], words: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_datasets(query(repo, *collections, **words))


def test_repositories_and_datasets_that_cannot_be_read(repo: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a Butler repository"):
        find_datasets(query(tmp_path / "none", "run1"))
    with pytest.raises(ConfigError, match="no collection"):
        find_datasets(query(repo))
    with writing(repo, "run_words") as butler:
        from lsst.daf.butler import DatasetType

        kind = DatasetType("words", ("skymap", "tract"), "StructuredDataDict", universe=butler.dimensions)
        butler.registry.registerDatasetType(kind)
        butler.put({"a": 1}, kind, skymap="map", tract=0)
    with pytest.raises(InputError, match="StructuredDataDict, not a table"):
        find_datasets(query(repo, "run_words", dataset_type="words"))
    ref = put(repo, "run_gone", 0, objects(0))
    [dataset] = find_datasets(query(repo, "run_gone"))
    assert dataset.version == str(ref.id)
    Path(dataset.uri).unlink()
    with pytest.raises(InputError, match=r"object_.*\.parq"):
        open_datasets([dataset])
    with writing(repo, "run_gone") as butler:
        butler.pruneDatasets([ref], unstore=True, disassociate=False)
    with pytest.raises(InputError, match="the Butler has no file of it"):
        find_datasets(query(repo, "run_gone"))


@pytest.mark.slow
def test_more_datasets_than_the_limit_of_the_butler(tmp_path: Path) -> None:
    from lsst.daf.butler import DatasetRef, DatasetType, FileDataset

    root = make_repo(tmp_path / "repo", range(1))
    ref = put(root, "one", 0, objects(0))
    with writing(root, "one") as butler:
        file = butler.getURI(ref).ospath
    with writing(root, "many") as butler:
        butler.registry.insertDimensionData("instrument", {"name": "cam", "class_name": "x", "detector_max": 30_000})
        detectors = [{"instrument": "cam", "id": n, "full_name": f"d{n}"} for n in range(20_500)]
        butler.registry.insertDimensionData("detector", *detectors)
        kind = DatasetType("many", ("instrument", "detector"), "ArrowTable", universe=butler.dimensions)
        butler.registry.registerDatasetType(kind)
        ids = [butler.registry.expandDataId(instrument="cam", detector=n) for n in range(20_500)]
        refs = [DatasetRef(kind, each, run="many") for each in ids]
        butler.ingest(FileDataset(path=file, refs=refs), transfer="direct")
    found = find_datasets(ButlerQuery(repo=str(root), collections=("many",), dataset_type="many", where="instrument = 'cam'"))
    assert len(found) == len({each.version for each in found}) == 20_500
