"""An export holds a snapshot's rows, is HATS for hats and LSDB, can be checked and loaded again; it is there whole or not at all."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from qengine.catalog.model import TableSnapshot
from qengine.cli import app
from qengine.errors import ConfigError, IntegrityError
from qengine.loader.export import ExportReport, ExportRequest, export
from tests.loader.stores import Site, sky

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A director with a margin and one row without a position, children with orphans, and a replicated table."""
    made = Site(tmp_path)
    rows = sky(600)
    rows["ra"][5] = np.nan
    made.load(made.write("obj.parquet", rows), key="id", margin_arcsec=30.0)
    rng = np.random.default_rng(2)
    owner = rng.choice([*rows["id"][::2], -5], 1500)
    sources = {"sid": np.arange(1500), "oid": owner, "mjd": rng.uniform(0, 9, 1500), "flux": rng.normal(0, 1, 1500)}
    made.load(made.write("src.parquet", sources), table="src", kind="child", director="obj", director_key="oid")
    made.load(made.write("band.parquet", {"band": ["g", "r"], "nm": [480, 620]}), table="band", kind="replicated")
    return made


def write(
    site: Site, target: Path, *names: str, nested: tuple[str, ...] = (), number: int | None = None, **words: Any
) -> ExportReport:
    catalog = site.registry.catalog(snapshots={"demo": number} if number else None)
    found = {t.table.name: t for t in catalog if t.table.schema == "demo"}
    chosen = [found[name] for name in names or found]
    request = ExportRequest(
        tables=tuple(chosen), target=target, catalog="demo", snapshot=number or site.registry.snapshot_number("demo"),
        nested=tuple(found[name] for name in nested), **words,
    )  # fmt: skip
    return export(request, site.store)


def all_rows(folder: Path) -> pa.Table:
    return pa.concat_tables(
        pq.ParquetFile(path).read().replace_schema_metadata(None) for path in sorted(folder.rglob("Npix=*/*.parquet"))
    )


def same(one: pa.Table, two: pa.Table, by: str) -> bool:
    names = sorted(one.column_names)
    one, two = (rows.select(names).replace_schema_metadata(None).sort_by(by).combine_chunks() for rows in (one, two))
    return bool(one.equals(two))


def stored(site: Site, found: TableSnapshot) -> pa.Table:
    return site.read(found.home)


def test_everything_is_there_and_can_be_checked(site: Site, tmp_path: Path) -> None:
    from hats.io.validation import is_valid_catalog

    out = tmp_path / "out"
    report = write(site, out, indexed=("id",))
    assert report.rows == {"band": 2, "obj": 608, "src": int(site.snapshot("src").home.rows.sum())}
    assert report.beyond["obj"] == 1
    assert report.beyond["src"] == 1500 - report.rows["src"] > 0
    for name in ("obj", "src"):
        assert is_valid_catalog(out / name, strict=True)
        by = "id" if name == "obj" else "sid"
        assert same(all_rows(out / name / name), stored(site, site.snapshot(name)), by)
        beyond = pa.concat_tables(pq.read_table(path) for path in (out / name / "beyond_the_sky").glob("*.parquet"))
        assert beyond.num_rows == report.beyond[name]
    assert pq.read_table(out / "band" / "part.0.parquet").num_rows == 2
    done = subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=out, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert {line.split("  ")[1] for line in (out / "SHA256SUMS").read_text().splitlines()} == files - {"SHA256SUMS"}
    about = json.loads((out / "export.json").read_text())
    assert (about["catalog"], about["snapshot"], about["tables"]["src"]["rows"]) == ("demo", 3, 1500)
    assert "name: obj" in (out / "obj" / "schema.yaml").read_text()
    # No part of it is a link into the store.
    assert all(path.stat().st_nlink == 1 for path in (out / "obj").rglob("Npix=*/*.parquet"))


def test_hats_finds_keys_in_the_index_and_shows_the_thumbnail(site: Site, tmp_path: Path) -> None:
    from hats.loaders.read_hats import read_hats

    write(site, tmp_path / "out", "obj", indexed=("id",))
    read: Any = read_hats
    collection = read(tmp_path / "out" / "obj")
    index = read(collection.get_index_dir_for_field("id"))
    rows = all_rows(tmp_path / "out" / "obj" / "obj")
    leaves = {(p.order, p.pixel) for p in collection.main_catalog.get_healpix_pixels()}
    for key in rows["id"].to_pylist()[::97]:
        (pixel,) = index.loc_partitions([key])
        assert (pixel.order, pixel.pixel) in leaves
        folder = next((tmp_path / "out/obj/obj/dataset").glob(f"Norder={pixel.order}/Dir=*/Npix={pixel.pixel}"))
        assert any(key in pq.ParquetFile(path).read(["id"])["id"].to_pylist() for path in folder.iterdir())
    thumbnail = pq.read_table(tmp_path / "out/obj/obj/dataset/data_thumbnail.parquet")
    assert thumbnail.num_rows == len(leaves)


def test_an_old_snapshot_and_columns_of_several_ages(site: Site, tmp_path: Path) -> None:
    before = stored(site, site.snapshot())
    more = sky(40, seed=9)
    more["id"] = np.arange(40 + 9) + 10_000_000
    more["ra"] = (more["ra"] + 11) % 360
    more["colour"] = np.arange(49, dtype=np.float32)
    site.load(site.write("more.parquet", more), key="id", extra_columns="keep")
    write(site, tmp_path / "new", "obj")
    rows = all_rows(tmp_path / "new/obj/obj")
    assert rows.num_rows == before.num_rows + 49
    assert rows["colour"].null_count == before.num_rows
    write(site, tmp_path / "old", "obj", number=1)
    assert same(all_rows(tmp_path / "old/obj/obj"), before, "id")


def test_nested_children(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from qengine.loader import nest

    monkeypatch.setattr(nest, "PIECE_ROWS", 100)
    write(site, tmp_path / "out", "obj", nested=("src",))
    sources = site.read(site.snapshot("src").home)
    for folder in ("obj", "obj_30arcs"):
        rows = all_rows(tmp_path / "out" / "obj" / folder).to_pylist()
        assert rows
        for row in rows:
            mine = sources.filter(pa.compute.equal(sources["oid"], row["id"]))
            assert list(row["src"]) == ["sid", "mjd", "flux"]
            assert sorted(row["src"]["sid"]) == sorted(mine["sid"].to_pylist())
            assert len(row["src"]["flux"]) == mine.num_rows
    kin = {row["sid"]: row["flux"] for row in sources.to_pylist()}
    for row in rows:
        assert [kin[sid] for sid in row["src"]["sid"]] == row["src"]["flux"]
    with pytest.raises(ConfigError, match="is not a child"):
        write(site, tmp_path / "other", "obj", nested=("obj",))
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
def test_lsdb_reads_nested_children(site: Site, tmp_path: Path) -> None:
    lsdb = pytest.importorskip("lsdb")
    write(site, tmp_path / "out", nested=("src",))
    nested = lsdb.open_catalog(tmp_path / "out" / "obj")
    assert nested.nested_columns == ["src"]
    rows = nested.compute()
    joined = lsdb.open_catalog(tmp_path / "out" / "obj").join_nested(
        lsdb.open_catalog(tmp_path / "out" / "src"), left_on="id", right_on="oid", nested_column_name="theirs", how="left"
    )
    theirs = joined.compute()
    assert len(rows) == len(theirs) == 608
    assert (
        rows["src"].nest.to_flat().shape[0] == theirs["theirs"].nest.to_flat().shape[0] == len(site.read(site.snapshot("src").home))
    )
    assert (
        lsdb.open_catalog(tmp_path / "out" / "obj")
        .crossmatch(lsdb.open_catalog(tmp_path / "out" / "obj"), radius_arcsec=1)
        .compute()
        .shape[0]
        >= 608
    )


def test_an_export_can_be_loaded_again(site: Site, tmp_path: Path) -> None:
    write(site, tmp_path / "out", "obj")
    from qengine.loader.load import load
    from qengine.loader.request import LoadRequest

    load(
        LoadRequest(inputs=(tmp_path / "out/obj",), catalog="again", table="obj", key="id", ra="ra", dec="dec"),
        site.registry,
        site.store,
    )
    found = site.registry.catalog().find("again", "obj")
    assert found is not None
    names = ["id", "ra", "dec", "mag", "name"]
    assert same(site.read(found.home).select(names), stored(site, site.snapshot()).select(names), "id")


def test_nothing_is_left_of_an_export_that_fails(site: Site, tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    with pytest.raises(ConfigError, match="exists"):
        write(site, target)
    target.rmdir()
    path = site.store.path(site.snapshot().home.uri[0].as_py())
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(IntegrityError, match="was published"):
        write(site, target)
    path.unlink()
    with pytest.raises(IntegrityError, match="is missing"):
        write(site, target)
    assert not [p for p in tmp_path.iterdir() if "out" in p.name]


def test_an_export_repairs_the_store(site: Site, tmp_path: Path) -> None:
    write(site, tmp_path / "out")
    uri = site.snapshot().home.uri[2].as_py()
    digest = hashlib.sha256(site.store.path(uri).read_bytes()).hexdigest()
    site.store.path(uri).unlink()
    words = ["verify", "demo", "--repair", str(tmp_path / "out"), "--store", str(site.store.root)]
    assert CliRunner().invoke(app, words).exit_code == 0
    assert hashlib.sha256(site.store.path(uri).read_bytes()).hexdigest() == digest


def test_command_line(site: Site, tmp_path: Path) -> None:
    site.registry.releases.tag("demo", 1, "first", doi="10.5281/zenodo.1")
    words = ["--store", str(site.store.root), "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(app, ["export", "demo", "--snapshot", "first", "--index", "id", *words])
    assert done.exit_code == 0, done.exception
    about = json.loads((tmp_path / "out/export.json").read_text())
    assert (about["tags"], about["doi"], list(about["tables"])) == (["first"], ["10.5281/zenodo.1"], ["obj"])
    assert not site.registry.releases.history("demo").leased
    for words in (["demo.nothing"], ["nothing"], ["demo", "--nest", "nothing"], ["demo", "--index", "nothing"]):
        failed = CliRunner().invoke(app, ["export", *words, "--store", str(site.store.root), "-o", str(tmp_path / "none")])
        assert isinstance(failed.exception, ConfigError)
        assert not (tmp_path / "none").exists()
