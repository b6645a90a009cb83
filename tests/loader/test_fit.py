"""Inputs whose columns are not those of the table: refused with file and column, or handled as the load says, in any order of files."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from astropy.coordinates import SkyCoord

from qengine.catalog.sidecar import SCALES
from qengine.errors import InputError
from qengine.loader.request import ExtraColumns, MissingColumns
from tests.loader.stores import Site

FELIS = """
name: demo
tables:
- name: obj
  primaryKey: '#obj.id'
  columns:
  - {name: id, datatype: long, nullable: false, description: key}
  - {name: ra, datatype: double, ivoa:unit: deg, ivoa:ucd: pos.eq.ra;meta.main, description: d}
  - {name: dec, datatype: double, ivoa:unit: deg, ivoa:ucd: pos.eq.dec;meta.main, description: d}
  - {name: psfFlux, datatype: float, ivoa:unit: nJy, description: flux}
  - {name: n, datatype: short, description: number}
"""
SIDECAR = '[tables.obj]\nkind = "director"\nra = "ra"\ndec = "dec"\n'


def base(first: int = 0, **more: Any) -> dict[str, Any]:
    rows = {
        "id": pa.array([first, first + 1], pa.int64()), "ra": [1.0, 2.0], "dec": [3.0, 4.0],
        "psfFlux": pa.array([1.0, 2.0], pa.float32()), "n": pa.array([1, 2], pa.int16()),
    }  # fmt: skip
    return {name: values for name, values in {**rows, **more}.items() if values is not None}


def with_unit(values: Any, unit: str = "", **words: str) -> tuple[pa.Array, dict[str, str]]:
    return pa.array(values), {"unit": unit, **words}


def described(columns: dict[str, Any]) -> pa.Table:
    """Return a table; values may be pairs of an array and the metadata of its field."""
    arrays, fields = [], []
    for name, values in columns.items():
        array, words = values if isinstance(values, tuple) else (pa.array(values), {})
        arrays.append(array)
        fields.append(pa.field(name, array.type, metadata={k: v for k, v in words.items() if v} or None))
    return pa.table(arrays, schema=pa.schema(fields))


@pytest.fixture
def schema(tmp_path: Path) -> Path:
    folder = tmp_path / "schema"
    folder.mkdir()
    (folder / "schema.yaml").write_text(FELIS)
    (folder / "sharding.toml").write_text(SIDECAR)
    return folder


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"psfFlux": None}, "b.parquet: column psfFlux is missing"),
        ({"psfFlux": None, "psFlux": [1.0, 2.0]}, "b.parquet: column psfFlux is missing (there is psFlux)"),
        ({"extra": [1, 2]}, "b.parquet: column extra is not declared"),
        ({"psfFlux": ["1", "2"]}, "b.parquet: column psfFlux is string, not FLOAT"),
        ({"psfFlux": [1.0, 2.0]}, "b.parquet: column psfFlux is double, not FLOAT"),
        ({"n": [1, 2]}, "b.parquet: column n is int64, not SMALLINT"),
        ({"PSFFLUX": [1.0, 2.0]}, "equal but for case"),
        ({"psfFlux": with_unit(np.array([1, 2], np.float32), "mJy")}, "b.parquet: column psfFlux is in mJy, not nJy"),
    ],
)
def test_misfits_name_file_and_column(site: Site, schema: Path, bad: dict[str, Any], words: str) -> None:
    good = site.write("a.parquet", base())
    other = site.write("b.parquet", described(base(10, **bad)))
    for inputs in ([good, other], [other, good], [other]):
        with pytest.raises(InputError) as caught:
            site.load(inputs, schema=schema)
        assert words in caught.value.message
        assert "b.parquet" in caught.value.message
    assert site.registry.catalog().find("demo", "obj") is None


def test_units_may_be_spelled_in_other_words(site: Site, schema: Path) -> None:
    flux = with_unit(np.array([1, 2], np.float32), "nanojansky")
    site.load(site.write("a.parquet", described(base(psfFlux=flux, ra=with_unit([1.0, 2.0], "degree")))), schema=schema)
    column = site.snapshot().table.column("psfFlux")
    assert column is not None
    assert column.unit == "nJy"


def read(site: Site) -> list[dict[str, Any]]:
    rows = site.read(site.snapshot().home).to_pylist()
    return sorted(({k: v for k, v in row.items() if not k.startswith("_")} for row in rows), key=lambda row: row["id"])


def test_extra_columns_are_kept_or_dropped_in_any_order_of_files(tmp_path: Path, schema: Path) -> None:
    files = {
        "a": base(0, zeta=pa.array([1, 2], pa.int16())),
        "b": base(10),
        "c": base(20, zeta=pa.array([2**40, None], pa.int64()), alpha=["x", "y"]),
    }
    for declared in (None, schema):
        for rule, names in ((ExtraColumns.KEEP, ["alpha", "zeta"]), (ExtraColumns.DROP, [])):
            seen = []
            for number, order in enumerate(itertools.permutations(files)):
                site = Site(tmp_path / f"{rule}{number}{declared is None}")
                inputs = [site.write(f"{name}.parquet", files[name]) for name in order]
                site.load(inputs, schema=declared, extra_columns=rule, key="id")
                table = site.snapshot().table
                seen.append((read(site), [(c.name, c.type.name) for c in table.columns if not c.hidden]))
            assert all(one == seen[0] for one in seen)
            rows, columns = seen[0]
            assert [name for name, _ in columns][5:] == names
            assert len(rows) == 6
            if names:
                assert dict(columns)["zeta"] == "BIGINT"
                assert [row["zeta"] for row in rows] == [1, 2, None, None, 2**40, None]
                assert [row["alpha"] for row in rows] == [None, None, None, None, "x", "y"]


def test_without_a_word_differing_files_are_refused(site: Site) -> None:
    first, second = site.write("a.parquet", base(0)), site.write("b.parquet", base(10, n=pa.array([1, 2], pa.int32())))
    third = site.write("c.parquet", base(20, more=[1, 2]))
    with pytest.raises(InputError, match=r"column 'n' is int.., but int.. in"):
        site.load([first, second])
    with pytest.raises(InputError, match=r"c\.parquet: column 'more' is not in"):
        site.load([third, first, site.write("d.parquet", base(30))])


def test_kept_columns_that_differ_in_case_or_unit_are_refused(site: Site) -> None:
    first = site.write("a.parquet", base(0, Zeta=[1, 2]))
    second = site.write("b.parquet", base(10, zeta=[1, 2]))
    with pytest.raises(InputError, match=r"'Zeta' of .*a\.parquet and 'zeta' of .*b\.parquet differ in case only"):
        site.load([first, second], extra_columns=ExtraColumns.KEEP)
    one = site.write("c.parquet", described(base(0, m=with_unit([1.0, 2.0], "mag"))))
    two = site.write("d.parquet", described(base(0, m=with_unit([1.0, 2.0], "nJy"))))
    with pytest.raises(InputError, match=r"d\.parquet: column 'm' is in nJy, but in mag in .*c\.parquet"):
        site.load([one, two])


def test_missing_columns_can_be_null(site: Site, schema: Path) -> None:
    path = site.write("a.parquet", base(psfFlux=None))
    site.load(path, schema=schema, missing_columns=MissingColumns.NULL)
    assert [row["psfFlux"] for row in read(site)] == [None, None]
    lacking = site.write("b.parquet", base(id=None))
    with pytest.raises(InputError, match="column id is missing"):
        site.load(lacking, catalog="other", schema=schema, missing_columns=MissingColumns.NULL)


# -- positions ----------------------------------------------------------------------------------------------------------------

RA, DEC = np.array([10.0, 200.5, 359.0, np.nan]), np.array([-30.0, 60.25, 0.0, 5.0])
STARS = SkyCoord(RA[:3], DEC[:3], unit="deg", frame="icrs")
IDS = pa.array([1, 2, 3, 4], pa.int64())


def with_nan(values: Any) -> np.ndarray[Any, Any]:
    return np.append(np.asarray(values), np.nan)


CASES: dict[str, dict[str, Any]] = {
    "rad": {"ra": with_unit(np.radians(RA), "rad"), "dec": with_unit(np.radians(DEC), "rad")},
    "hour": {"ra": with_unit(RA / 15, "hourangle"), "dec": with_unit(DEC, "deg")},
    "fk5": {"ra": with_unit(with_nan(STARS.fk5.ra.deg), "deg", frame="FK5"), "dec": with_unit(with_nan(STARS.fk5.dec.deg), "deg")},
    "galactic": {
        "l": with_unit(with_nan(STARS.galactic.l.deg), "deg", ucd="pos.galactic.lon;meta.main"),
        "b": with_unit(with_nan(STARS.galactic.b.deg), "deg", ucd="pos.galactic.lat;meta.main"),
    },
}


@pytest.mark.parametrize("case", CASES)
def test_positions_in_other_units_and_frames(site: Site, case: str) -> None:
    columns = CASES[case]
    names = {"ra": "l", "dec": "b"} if case == "galactic" else {}
    path = site.write("a.parquet", described({"id": IDS, **columns}))
    with pytest.raises(InputError, match=f"a.parquet: .* are in .*{case}") as caught:
        site.load(path, key="id", **names)
    assert "--convert-position" in caught.value.hint
    site.load(path, key="id", convert_position=True, **names)
    snapshot = site.snapshot()
    rows = sorted(site.read(snapshot.home).to_pylist(), key=lambda row: row["id"])
    assert (snapshot.table.ra, snapshot.table.dec, snapshot.table.frame) == ("ra", "dec", "icrs")
    found = SkyCoord([row["ra"] for row in rows], [row["dec"] for row in rows], unit="deg")
    assert found.separation(STARS).arcsec.max() < 1e-6
    assert snapshot.orphan.rows.sum() == 1
    originals = ("l", "b") if case == "galactic" else ("ra_original", "dec_original")
    for kept, (values, words) in zip(originals, columns.values(), strict=True):
        assert [row[kept] for row in rows] == values.to_pylist()[:3]
        column = snapshot.table.column(kept)
        assert column is not None
        assert column.unit == words["unit"]
    ra = snapshot.table.column("ra")
    assert ra is not None
    assert (ra.unit, ra.ucd) == ("deg", "pos.eq.ra;meta.main")
    assert [c.name for c in snapshot.table.columns if c.ucd == "pos.eq.ra;meta.main"] == ["ra"]


def test_a_sidecar_says_what_inputs_do_not(site: Site, schema: Path) -> None:
    (schema / "schema.yaml").write_text(FELIS.replace("ivoa:unit: deg, ", ""))
    (schema / "sharding.toml").write_text('[position]\nunit = "rad"\n' + SIDECAR)
    path = site.write("a.parquet", base(ra=np.radians([1.0, 2.0]), dec=np.radians([3.0, 4.0])))
    with pytest.raises(InputError, match="ra and dec are in rad"):
        site.load(path, schema=schema)
    site.load(path, schema=schema, convert_position=True)
    assert [round(row["ra"], 9) for row in read(site)] == [1.0, 2.0]
    assert [row["ra_original"] for row in read(site)] == pytest.approx(np.radians([1.0, 2.0]))
    contradicting = site.write("b.parquet", described(base(ra=with_unit([1.0, 2.0], "deg"), dec=with_unit([3.0, 4.0], "deg"))))
    with pytest.raises(InputError, match="column 'ra' is in deg, but the sidecar says rad"):
        site.load(contradicting, table="obj", catalog="other", schema=schema, convert_position=True)


def test_positions_that_cannot_be_taken(site: Site) -> None:
    odd = site.write("a.parquet", described({"id": [1], "ra": with_unit([1.0], "arcmin"), "dec": with_unit([1.0], "arcmin")}))
    with pytest.raises(InputError, match="column 'ra' is in 'arcmin', which is no unit of a position"):
        site.load(odd)
    hours = site.write("b.parquet", described({"id": [1], "ra": with_unit([1.0], "h"), "dec": with_unit([1.0], "h")}))
    with pytest.raises(InputError, match="column 'dec' is in hours"):
        site.load(hours)
    frame = site.write("c.parquet", described({"id": [1], "ra": with_unit([1.0], frame="helioprojective"), "dec": [1.0]}))
    with pytest.raises(InputError, match=r"c\.parquet: positions are in helioprojective"):
        site.load(frame, convert_position=True)
    plain = site.write("d.parquet", {"id": [2], "ra": [1.0], "dec": [1.0]})
    radian = site.write("e.parquet", described({"id": [1], "ra": with_unit([1.0], "rad"), "dec": with_unit([1.0], "rad")}))
    with pytest.raises(InputError, match=r"e\.parquet: ra and dec are in rad, but ra and dec are in deg in .*d\.parquet"):
        site.load([plain, radian], convert_position=True)
    taken = site.write("f.parquet", described({"ra_original": [1], "ra": with_unit([1.0], "rad"), "dec": with_unit([1.0], "rad")}))
    with pytest.raises(InputError, match="needs the name 'ra_original', which is taken"):
        site.load(taken, convert_position=True)


def test_infinite_and_impossible_positions_of_other_frames_go_to_quarantine(site: Site) -> None:
    lon, lat = (
        with_unit([10.0, np.inf, 20.0], "deg", ucd="pos.galactic.lon"),
        with_unit([1.0, 2.0, 95.0], "deg", ucd="pos.galactic.lat"),
    )
    path = site.write("a.parquet", described({"id": [1, 2, 3], "l": lon, "b": lat}))
    report = site.load(path, ra="l", dec="b", key="id", convert_position=True)
    assert (report.read, report.stored, report.quarantined) == (3, 1, 2)


def test_the_sidecar_says_which_line(site: Site, schema: Path) -> None:
    (schema / "sharding.toml").write_text('[tables.obj]\nkind = "series"\ntime_key = "n"\n')
    site.load(site.write("a.parquet", base()), schema=schema)
    found = site.snapshot().table
    assert (found.kind.value, found.line, found.time_key) == ("series", "time", "n")
    assert "tai" in SCALES
