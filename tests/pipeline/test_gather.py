"""Receipts are published once, whatever happens between."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from qengine.catalog.loads import LoadState
from qengine.errors import InputError, QEngineError
from qengine.loader.receipt import Receipt, receive
from qengine.loader.request import LoadRequest
from qengine.loader.sources.open import open_sources
from qengine.loader.transaction import Committed
from qengine.pipeline.gather import load_id, publish_receipts
from tests.loader.stores import Site, sky


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def receipt(site: Site, table: str, path: Path, *, catalog: str = "demo") -> Receipt:
    made = receive(LoadRequest(catalog=catalog, table=table, key="id"), open_sources([path]), contributor="test")
    return Receipt.from_json(made.to_json())


def publish(site: Site, *receipts: Receipt, run: str = "u/1") -> Committed:
    return publish_receipts(receipts, run, site.registry, site.store, context={"why": "test"})


def test_the_same_receipts_are_published_once(site: Site) -> None:
    one = receipt(site, "obj", site.write("a.parquet", sky(100)))
    first, again = publish(site, one), publish(site, one)
    assert first.load.id == again.load.id == load_id("u/1")
    assert (first.load.snapshot, again.load.snapshot, site.registry.snapshot_number("demo")) == (1, 1, 1)
    assert [report.stored for report in again.reports] == [109]
    [load] = site.registry.loads()
    assert (load.context["run"], load.context["why"]) == ("u/1", "test")


def test_a_run_that_was_extended_gets_a_further_load_with_what_is_new(site: Site) -> None:
    one = receipt(site, "obj", site.write("a.parquet", sky(100)))
    publish(site, one)
    two = receipt(site, "other", site.write("b.parquet", sky(50)))
    done = publish(site, one, two)
    assert (done.load.id, done.load.snapshot) == (load_id("u/1", 1), 2)
    assert publish(site, two, one).load.id == done.load.id
    assert site.registry.snapshot_number("demo") == 2
    assert (site.snapshot("obj").rows, site.snapshot("other").rows) == (109, 59)


def test_a_commit_that_failed_goes_on_when_it_is_run_again(site: Site) -> None:
    path = site.write("a.parquet", sky(100))
    one = receipt(site, "obj", path)
    aside = path.rename(path.with_suffix(".aside"))
    with pytest.raises(QEngineError, match=r"a\.parquet"):
        publish(site, one)
    assert site.registry.snapshot_number("demo") == 0
    aside.rename(path)
    done = publish(site, one)
    assert (done.load.id, done.load.snapshot, done.load.state) == (load_id("u/1"), 1, LoadState.FINISHED)


def test_receipts_of_nothing_or_of_several_catalogues(site: Site) -> None:
    one = receipt(site, "obj", site.write("a.parquet", pa.table(sky(20))))
    other = receipt(site, "obj", site.inputs / "a.parquet", catalog="elsewhere")
    with pytest.raises(InputError, match="no receipts"):
        publish(site)
    with pytest.raises(InputError, match=r"receipts of \['demo', 'elsewhere'\]"):
        publish(site, one, other)
