from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qengine import app
from qengine.catalog.registry import Registry
from qengine.errors import InputError
from tests.loader.stores import Site, sky

FELIS = """
name: demo
"@id": "#demo"
tables:
- name: obj
  "@id": "#obj"
  columns:
  - {name: id, "@id": "#id", datatype: long}
  - {name: ra, "@id": "#ra", datatype: double, fits:tunit: deg}
  - {name: dec, "@id": "#dec", datatype: double, fits:tunit: deg}
  - {name: mag, "@id": "#mag", datatype: float}
  - {name: name, "@id": "#name", datatype: string, length: 20}
"""
DIRECTOR = '[tables.obj]\nkind = "director"\nkey = "id"\nra = "ra"\ndec = "dec"\n'


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def answers(site: Site, *statements: str) -> list[list[dict[str, object]]]:
    with app.connect(site.store.root) as client:
        return [client.query(statement).to_arrow().to_pylist() for statement in statements]


def test_every_load_is_told_of_and_joins_with_rows(site: Site) -> None:
    columns = sky(300)
    columns["mag"][:10] = np.nan
    columns["dec"][:3] = 95.0
    site.load(site.write("a.parquet", columns), key="id")
    statements = (
        "SELECT l.load_state, i.rows_read, i.rows_stored, i.rows_quarantined, q.nan_count, q.null_count, q.distinct_estimate "
        "FROM qengine_meta.loads l JOIN qengine_meta.inputs i ON l.load_number = i.load_number "
        "JOIN qengine_meta.quality q ON q.load_number = l.load_number WHERE q.column_name = 'mag'",
        "SELECT SUM(part_rows) AS n FROM qengine_meta.parts WHERE part_role <> 'margin' AND table_name = 'obj'",
        "SELECT COUNT(*) AS n FROM demo.obj o JOIN qengine_meta.loads l ON o._load = l.load_number",
        "SELECT rows_read, rows_stored, rows_quarantined, rows_filtered, rows_skipped FROM qengine_meta.quality WHERE column_name IS NULL",
        "SELECT table_name FROM TAP_SCHEMA.tables WHERE schema_name = 'qengine_meta' ORDER BY table_name",
        "SELECT n.load_state FROM (SELECT load_state FROM qengine_meta.loads) n",
    )
    joined, parts, rows, counts, tables, nested = answers(site, *statements)
    assert joined == [
        {"load_state": "finished", "rows_read": 309, "rows_stored": 306, "rows_quarantined": 3, "nan_count": 10, "null_count": 7,
         "distinct_estimate": len(set(columns["mag"][10:].tolist()))}
    ]  # fmt: skip
    assert parts == [{"n": 306}]
    assert rows == [{"n": 306}]
    assert counts == [{"rows_read": 309, "rows_stored": 306, "rows_quarantined": 3, "rows_filtered": 0, "rows_skipped": 0}]
    names = [str(row["table_name"]).rpartition(".")[2] for row in tables]
    assert names == ["inputs", "loads", "parts", "quality", "queries", "snapshots", "tags"]
    assert nested == [{"load_state": "finished"}]


def test_rows_are_of_now_though_the_snapshot_is_the_same(site: Site) -> None:
    site.load(site.write("a.parquet", sky(100)), key="id")
    with app.connect(site.store.root) as client:
        query = "SELECT tag_name, doi FROM qengine_meta.tags"
        assert client.query(query).to_arrow().num_rows == 0
        site.registry.releases.tag("demo", 1, "DR1", doi="10.1/x")
        assert client.query(query).to_arrow().to_pylist() == [{"tag_name": "DR1", "doi": "10.1/x"}]
        site.registry.begin_load({"why": "a test"}, catalog="demo")
        found = client.query("SELECT reason FROM qengine_meta.loads WHERE load_state = 'open'").to_arrow().to_pylist()
    assert found == [{"reason": "a test"}]


def test_a_table_of_a_catalogue_hides_a_system_table_of_the_same_name(site: Site) -> None:
    site.load(site.write("a.parquet", sky(100)), key="id", table="parts")
    assert answers(site, "SELECT COUNT(id) AS n FROM parts") == [[{"n": 109}]]


def test_quality_outlives_the_registry(site: Site) -> None:
    site.load(site.write("a.parquet", sky(100)), key="id")
    site.registry.close()
    (site.store.root / "registry.sqlite").unlink()
    with Registry.open(site.store.root) as registry:
        registry.rebuild()
    assert answers(site, "SELECT COUNT(*) AS n FROM qengine_meta.quality") == [[{"n": 6}]]


@pytest.mark.parametrize("action", ["fail", "warn"])
def test_thresholds_fail_or_warn(site: Site, action: str) -> None:
    columns = sky(100)
    columns["mag"][:60] = np.nan
    sidecar = site.inputs / "sharding.toml"
    sidecar.write_text(f'{DIRECTOR}[tables.obj.quality]\naction = "{action}"\nmax_null_fraction = {{mag = 0.1}}\nmin_rows = 1000\n')
    (site.inputs / "demo.yaml").write_text(FELIS)
    path = site.write("a.parquet", columns)
    if action == "fail":
        with pytest.raises(InputError, match=r"demo.obj.*rows is 109.*column mag.*null fraction is 0.55"):
            site.load(path, schema=site.inputs / "demo.yaml")
        assert site.registry.catalog().find("demo", "obj") is None
        return
    site.load(path, schema=site.inputs / "demo.yaml")
    (load,) = site.registry.loads()
    assert len(load.context["warnings"]) == 2
    assert answers(site, "SELECT broken_thresholds AS n FROM qengine_meta.quality WHERE column_name IS NULL") == [[{"n": 2}]]
