"""The verbs about schemas, on the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qengine.cli import run


@pytest.fixture
def stars(tmp_path: Path) -> Path:
    def field(name: str, kind: pa.DataType, **words: str) -> pa.Field:
        return pa.field(name, kind, metadata=words or None)

    schema = pa.schema([
        field("star_id", pa.int64(), ucd="meta.id;meta.main", description="Identifier"),
        field("RAJ2000", pa.float64(), unit="deg", ucd="pos.eq.ra;meta.main", description="Right ascension"),
        field("DEJ2000", pa.float64(), unit="deg", ucd="pos.eq.dec;meta.main"),
        field("Vmag", pa.float32(), unit="mag", ucd="phot.mag;em.opt.V", description="V magnitude"),
        field("flag", pa.bool_()), field("when", pa.timestamp("us")), field("name", pa.string()), field("odd", pa.float64(), unit="furlong"),
    ])  # fmt: skip
    n = 20
    rows = [
        np.arange(n),
        np.linspace(0, 350, n),
        np.linspace(-80, 80, n),
        np.ones(n, np.float32),
        np.zeros(n, bool),
        np.arange(n).astype("datetime64[us]"),
        ["x"] * n,
        np.ones(n),
    ]
    path = tmp_path / "my-stars.parquet"
    pq.write_table(pa.table([pa.array(v, f.type) for v, f in zip(rows, schema, strict=True)], schema=schema), path)
    return path


def test_infer_complete_and_load(tmp_path: Path, stars: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "catalogue"
    assert run(["schema", "infer", str(stars), "-o", str(folder)]) == 0
    sidecar = folder / "sharding.toml"
    words = [
        "load",
        str(stars),
        "--into",
        "mine",
        "--table",
        "my_stars",
        "--schema",
        str(folder),
        "--store",
        str(tmp_path / "store"),
    ]
    assert run(words) == 1
    assert "nobody has confirmed" in capsys.readouterr().err
    sidecar.write_text(sidecar.read_text().replace("confirmed = false", "confirmed = true"))
    assert run(words) == 0
    assert (
        run(
            [
                "query",
                "SELECT star_id, Vmag FROM mine.my_stars WHERE star_id < 3",
                "--store",
                str(tmp_path / "store"),
                "--format",
                "csv",
            ]
        )
        == 0
    )
    assert capsys.readouterr().out.splitlines()[0] == "star_id,Vmag"
    # what people have completed is not replaced
    assert run(["schema", "infer", str(stars), "-o", str(folder)]) == 1
    from felis.datamodel import Schema

    felis = Schema.from_uri(str(folder / "schema.yaml"), context={"id_generation": True})
    columns = {column.name: column for column in felis.tables[0].columns}
    assert (columns["Vmag"].ivoa_unit, columns["Vmag"].ivoa_ucd, columns["RAJ2000"].datatype.value) == (
        "mag",
        "phot.mag;em.opt.V",
        "double",
    )
    assert "furlong" in columns["odd"].description


def test_propose_and_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("lsst.sdm.schemas")
    path = tmp_path / "sharding.toml"
    assert run(["schema", "propose", "resource://lsst.sdm.schemas/dp1.yaml", "-o", str(path)]) == 0
    assert 'kind = "?"' in path.read_text()
    assert run(["schema", "show", "apdb"]) == 0
    assert "DiaSource: child of DiaObjectLast by diaObjectId" in capsys.readouterr().out
    assert run(["schema", "show", "nothing"]) == 1
    assert "dp1" in capsys.readouterr().err
