"""Proposed sidecars: right where UCDs and keys leave no choice, a question where they do, and never confirmed."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from qengine.catalog.felis_schema import declared, shipped, tables_of
from qengine.catalog.model import TableKind
from qengine.catalog.propose import propose
from qengine.errors import SchemaError

DP1 = "resource://lsst.sdm.schemas/dp1.yaml"


def test_a_release_as_far_as_it_is_clear() -> None:
    pytest.importorskip("lsst.sdm.schemas")
    words = tomllib.loads(propose(tables_of(DP1), schema=DP1))
    kinds = {name: table["kind"] for name, table in words["tables"].items()}
    reviewed = declared("dp1").layouts
    assert kinds == {name: layout.kind.value for name, layout in reviewed.items()} | {"Visit": "?", "CcdVisit": "?"}
    assert words["schema"] == DP1
    forced = words["tables"]["ForcedSource"]
    assert (forced["director"], forced["director_key"], forced["ra"]) == ("Object", "objectId", "coord_ra")
    assert words["tables"]["DiaSource"]["time"]["midpointMjdTai"] == {"scale": "tai", "origin": "mjd", "format": "mjd"}


@pytest.mark.parametrize("uri", ["dp02_dc2", "dp2", "apdb", "dp03_10yr", "ppdb"])
def test_proposals_are_read_but_refused(tmp_path: Path, uri: str) -> None:
    pytest.importorskip("lsst.sdm.schemas")
    address = f"resource://lsst.sdm.schemas/{uri}.yaml"
    path = tmp_path / "sharding.toml"
    text = propose(tables_of(address), schema=address)
    path.write_text(text)
    assert set(tomllib.loads(text)["tables"]) == {table.name for table in tables_of(address)}
    with pytest.raises(SchemaError, match=r"sharding\.toml: (confirmed: nobody has|tables\.\S+\.kind: must be one of)"):
        declared(path)
    answered = text.replace('kind = "?"', 'kind = "replicated"').replace("confirmed = false", "confirmed = true")
    path.write_text("\n".join(line for line in answered.splitlines()))
    assert {table.kind for table in declared(path).tables} <= set(TableKind)


FELIS = """
name: own
tables:
- name: star
  primaryKey: '#star.id'
  columns:
  - {name: id, datatype: long, description: d}
  - {name: lon, datatype: double, ivoa:ucd: pos.eq.ra;meta.main, description: d}
  - {name: lat, datatype: double, ivoa:ucd: pos.eq.dec;meta.main, description: d}
  - {name: mu_a, datatype: float, ivoa:ucd: pos.pm;pos.eq.ra, description: d}
  - {name: mu_d, datatype: float, ivoa:ucd: pos.pm;pos.eq.dec, description: d}
- name: galaxy
  primaryKey: '#galaxy.gid'
  columns:
  - {name: gid, datatype: long, description: d}
  - {name: ra, datatype: double, ivoa:ucd: pos.eq.ra;meta.main, description: d}
  - {name: dec, datatype: double, ivoa:ucd: pos.eq.dec;meta.main, description: d}
- name: near
  columns:
  - {name: s, datatype: long, description: d}
  - {name: g, datatype: long, description: d}
  constraints:
  - {name: a, '@type': ForeignKey, columns: ['#near.s'], referencedColumns: ['#star.id'], description: d}
  - {name: b, '@type': ForeignKey, columns: ['#near.g'], referencedColumns: ['#galaxy.gid'], description: d}
- name: two
  columns:
  - {name: a, datatype: double, ivoa:ucd: pos.eq.ra;meta.main, description: d}
  - {name: b, datatype: double, ivoa:ucd: pos.eq.ra;meta.main, description: d}
- name: seen
  primaryKey: '#seen.n'
  columns:
  - {name: n, datatype: long, description: d}
  - {name: star, datatype: long, description: d}
  - {name: ra, datatype: double, ivoa:ucd: pos.eq.ra;meta.main, description: d}
  - {name: dec, datatype: double, ivoa:ucd: pos.eq.dec;meta.main, description: d}
  constraints:
  - {name: c, '@type': ForeignKey, columns: ['#seen.star'], referencedColumns: ['#star.id'], description: d}
"""


def test_questions_and_answers(tmp_path: Path) -> None:
    path = tmp_path / "schema.yaml"
    path.write_text(FELIS)
    text = propose(tables_of(str(path)))
    tables = tomllib.loads(text)["tables"]
    assert {name: table["kind"] for name, table in tables.items()} == {
        "star": "director", "galaxy": "director", "near": "match", "two": "?", "seen": "?",
    }  # fmt: skip
    assert (tables["near"]["left"], tables["near"]["right"]) == ("star.s", "galaxy.g")
    assert (tables["star"]["ra"], tables["star"]["pmra"]) == ("lon", "mu_a")
    assert "director, or child of star" in text
    assert "the UCDs of a main position are on a, b" in text
    (tmp_path / "sharding.toml").write_text(text.replace("confirmed = false", "confirmed = true"))
    with pytest.raises(SchemaError, match=r"tables\.two\.kind: must be one of"):
        declared(path)


def test_shipped_sidecars_are_confirmed() -> None:
    assert {"demo", "dp02", "dp1", "dp2", "apdb"} <= set(shipped())
    for path in shipped().values():
        assert "confirmed = false" not in path.read_text()
