"""`verify` finds every kind of damage, `--repair` mends it from a copy, `registry rebuild` needs nothing but the store."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from qengine.catalog.model import NO_PARTS
from qengine.catalog.registry import Registry
from qengine.cli import app
from qengine.errors import ConfigError, IntegrityError
from qengine.loader.verify import Report, restore_manifests, verify_children, verify_files
from tests.loader.stores import Site, sky


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A director with a margin, and children of which some are orphans."""
    made = Site(tmp_path)
    rows = sky(600)
    made.load(made.write("obj.parquet", rows), key="id", margin_arcsec=30.0)
    rng = np.random.default_rng(2)
    owner = rng.choice([*rows["id"], -5], 1500)
    made.load(
        made.write("src.parquet", {"sid": np.arange(1500), "oid": owner, "flux": rng.normal(0, 1, 1500)}),
        table="src", kind="child", director="obj", director_key="oid",
    )  # fmt: skip
    return made


def check(site: Site, copy: Path | None = None) -> Report:
    number = site.registry.snapshot_number("demo")
    lost = restore_manifests(site.registry.manifests_at("demo", number), site.store, copy)
    tables = [found for found in site.registry.catalog() if found.table.schema == "demo"]
    return verify_files(tables, site.store, catalog="demo", snapshot=number, before=lost, copy=copy)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def turn_into_a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def test_a_sound_store(site: Site) -> None:
    report = check(site)
    assert report.is_sound
    assert not report.faults
    assert report.rows == site.snapshot().rows + site.snapshot("src").rows
    assert len(site.snapshot("src").orphan) > 0
    assert len(site.snapshot().margin) > 0
    assert report.to_text().endswith("as published")


@pytest.mark.parametrize("damage", [cut, flip, grow, Path.unlink])
@pytest.mark.parametrize("role", ["home", "orphan", "margin", "keys"])
def test_damage_is_found_and_mended(site: Site, tmp_path: Path, damage: Callable[[Path], None], role: str) -> None:
    found = site.snapshot("src") if role == "orphan" else site.snapshot()
    assert found.key_index is not None or role != "keys"
    uri = found.key_index.uri[0] if role == "keys" and found.key_index else getattr(found, role).uri[0].as_py()
    copy = tmp_path / "copy"
    shutil.copytree(site.store.root, copy)
    before = site.store.path(uri).read_bytes()
    damage(site.store.path(uri))
    report = check(site)
    assert [fault.uri for fault in report.faults] == [uri] * len(report.faults)
    assert report.faults
    assert not report.is_sound
    mended = check(site, copy)
    assert mended.faults[0].repaired
    assert mended.is_sound
    assert site.store.path(uri).read_bytes() == before
    assert not check(site).faults
    # The trees that others read have the good file too: it was one file with two names.
    trees = [path for path in site.store.root.rglob(f"{Path(uri).stem[:24]}.parquet") if path != site.store.path(uri)]
    assert all(path.read_bytes() == before for path in trees)
    assert trees or role in ("keys", "orphan")


def test_a_copy_that_is_damaged_too_is_not_taken(site: Site, tmp_path: Path) -> None:
    uri = site.snapshot().home.uri[0].as_py()
    copy = tmp_path / "copy"
    shutil.copytree(site.store.root, copy)
    flip(copy / uri)
    for path in copy.rglob(f"{Path(uri).stem[:24]}.parquet"):
        path.unlink()
    site.store.path(uri).unlink()
    report = check(site, copy)
    assert [(fault.uri, fault.what, fault.repaired) for fault in report.faults] == [(uri, "is missing", False)]
    assert not report.is_sound
    with pytest.raises(ConfigError, match="is not a directory"):
        check(site, tmp_path / "nowhere")


def test_hats_trees_are_copies_as_well(site: Site, tmp_path: Path) -> None:
    """An export, or what is left of a store: only the tree's names, which begin as the digests do."""
    uri = site.snapshot().home.uri[1].as_py()
    copy = tmp_path / "tree"
    copy.mkdir()
    shutil.copyfile(site.store.path(uri), copy / f"{Path(uri).stem[:24]}.parquet")
    site.store.path(uri).unlink()
    assert check(site, copy).is_sound


def test_manifests(site: Site, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(site.store.root, copy)
    number = site.registry.snapshot_number("demo")
    refs = site.registry.manifests_at("demo", number)
    flip(site.store.path(refs[0].uri))
    site.store.path(refs[1].uri).unlink()
    lost = restore_manifests(refs, site.store, None)
    assert ["sha256" in lost[0].what, lost[1].what] == [True, "is missing"]
    assert check(site, copy).is_sound
    assert not restore_manifests(refs, site.store, None)


def test_a_manifest_that_says_something_else_than_the_files(site: Site) -> None:
    """As a writer with a defect would leave it: the bytes are what was published, what the planner is told is wrong."""

    def faults(**words: object) -> list[str]:
        home = dataclasses.replace(site.snapshot().home, **words)  # type: ignore[arg-type]
        found = dataclasses.replace(site.snapshot(), home=home)
        return [f.what for f in verify_files([found], site.store, catalog="demo", snapshot=1).faults]

    home = site.snapshot().home
    assert "were published" in faults(rows=home.rows + 1)[0]
    assert "outside of" in faults(stop=np.r_[home.lowest[0], home.stop[1:]])[0]
    groups = home.row_groups
    assert (
        "does not say"
        in faults(row_groups=dataclasses.replace(groups, highest=np.r_[groups.highest[0] - 1, groups.highest[1:]]))[0]
    )
    assert "row groups" in faults(row_groups=dataclasses.replace(groups, rows=groups.rows + 1))[0]


def test_children_lie_where_their_directors_do(site: Site) -> None:
    catalog, child = site.registry.catalog(), site.snapshot("src")
    assert verify_children(child, catalog, site.store) == 1500
    orphans = dataclasses.replace(child, home=child.orphan)
    with pytest.raises(IntegrityError, match="oid -5 does not lie"):
        verify_children(orphans, catalog, site.store)
    with pytest.raises(IntegrityError, match="is an orphan, but"):
        verify_children(dataclasses.replace(child, home=NO_PARTS, orphan=child.home), catalog, site.store)
    with pytest.raises(ConfigError, match="it has no director"):
        verify_children(site.snapshot(), catalog, site.store)


def run(site: Site, *words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, [*words, "--store", str(site.store.root)])
    return result.exit_code, result.output


def test_command_line(site: Site, tmp_path: Path) -> None:
    code, said = run(site, "verify", "demo")
    assert (code, "as published" in said) == (0, True)
    code, said = run(site, "verify", "demo", "--keys")
    assert code == 0
    assert "demo.obj: key id" in said
    assert "demo.src: 1,500 rows" in said
    shutil.copytree(site.store.root, tmp_path / "copy")
    uri = site.snapshot().home.uri[0].as_py()
    cut(site.store.path(uri))
    code, said = run(site, "verify", "DEMO.obj", "--json")
    assert code == 1
    assert json.loads(said[said.index("{") :])["faults"][0]["uri"] == uri
    assert run(site, "verify", "demo.src")[0] == 0
    code, said = run(site, "verify", "demo", "--repair", str(tmp_path / "copy"))
    assert (code, "(repaired)" in said) == (0, True)
    assert run(site, "verify", "demo", "--snapshot", "1")[0] == 0
    assert "keys are proven of the latest" in str(CliRunner().invoke(
        app, ["verify", "demo", "--keys", "--snapshot", "1", "--store", str(site.store.root)]
    ).exception)  # fmt: skip
    for words in (["nothing"], ["demo.nothing"], ["demo", "--snapshot", "nothing"]):
        assert CliRunner().invoke(app, ["verify", *words, "--store", str(site.store.root)]).exit_code != 0


def test_a_registry_from_the_store_alone(site: Site, tmp_path: Path) -> None:
    site.registry.releases.tag("demo", 1, "first", note="kept")
    rows = {name: site.read(site.snapshot(name).home).num_rows for name in ("obj", "src")}
    before = site.registry.snapshots("demo")
    inputs = len(site.registry.inputs("demo"))
    site.registry.close()
    for path in site.store.root.glob("registry.sqlite*"):
        os.remove(path)
    code, said = run(site, "registry", "rebuild")
    assert code == 0, said
    assert "demo are known again" in said
    with Registry.open(site.store.root) as registry:
        assert [entry.number for entry in registry.snapshots("demo")] == [entry.number for entry in before]
        assert [tag.name for tag in registry.releases.history("demo").tags] == ["first"]
        assert len(registry.inputs("demo")) == inputs
        again = Site.__new__(Site)
        again.inputs, again.store, again.registry = site.inputs, site.store, registry
        assert {name: again.read(again.snapshot(name).home).num_rows for name in rows} == rows
        more = pq.read_table(site.inputs / "obj.parquet").slice(0, 5)
        more = more.set_column(0, "id", pa.array([1_000_000 + i for i in range(5)]))
        again.load(again.write("more.parquet", more), key="id")
        assert again.snapshot().rows == rows["obj"] + 5
    result = CliRunner().invoke(app, ["registry", "rebuild", "--store", str(tmp_path / "in")])
    assert "holds no snapshots" in str(result.exception)
