"""CROSSMATCH means what its prose says: against a plain computation of all pairs, epochs included; and it refuses with a remedy."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qengine.catalog.model import NO_PARTS, Catalog, Column, Table, TableKind, TableSnapshot
from qengine.catalog.types import BIGINT, DOUBLE
from qengine.errors import QueryError, QuerySyntaxError, QueryTypeError, UnknownNameError, UnsupportedQueryError
from qengine.sql.bind import BoundQuery, bind
from qengine.sql.macros import MACROS
from qengine.sql.parse import parse
from qengine.sql.render import render

ARCSEC = 1 / 3600


def table(name: str, key: str, rows: dict[str, Any], **more: Any) -> TableSnapshot:
    types = {c: BIGINT if c == key else DOUBLE for c in rows}
    units = {"pmra": "mas/yr", "pmdec": "mas/yr"}
    columns = tuple(Column(name=c, type=t, unit=units.get(c, "")) for c, t in types.items())
    found = Table(schema="s", name=name, kind=TableKind.REPLICATED, columns=columns, key=key, ra="ra", dec="dec", line_column="")
    data = pa.table({c: pa.array(v, pa.int64() if c == key else pa.float64()) for c, v in rows.items()})
    return TableSnapshot(
        table=dataclasses.replace(found, **more), number=1, home=NO_PARTS, orphan=NO_PARTS, margin=NO_PARTS, inline=data
    )


def ask(catalog: Catalog, text: str, language: str = "adql") -> tuple[list[tuple[Any, ...]], BoundQuery]:
    """The rows of the bound statement in one DuckDB."""
    bound = bind(parse(text, language), catalog)
    database = one_database()
    for snapshot in catalog:
        database.register("rows", snapshot.inline)
        database.execute(f'CREATE OR REPLACE TABLE s."{snapshot.table.name}" AS SELECT * FROM rows')
        database.unregister("rows")
    return database.execute(render(bound.tree)).fetchall(), bound


@cache
def one_database() -> duckdb.DuckDBPyConnection:
    database = duckdb.connect(":memory:", config={"threads": 1})
    for macro in MACROS:
        database.execute(macro)
    database.execute("CREATE SCHEMA s")
    return database


def direction(ra: Any, dec: Any) -> Any:
    lon, lat = np.radians(np.asarray(ra, np.longdouble)), np.radians(np.asarray(dec, np.longdouble))
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], -1)


def moved(ra: Any, dec: Any, pmra: Any, pmdec: Any, years: float) -> Any:
    """Directions after some years of straight motion."""
    lon, lat = np.radians(np.asarray(ra, np.longdouble)), np.radians(np.asarray(dec, np.longdouble))
    east = np.stack([-np.sin(lon), np.cos(lon), np.zeros_like(lon)], -1)
    north = np.stack([-np.sin(lat) * np.cos(lon), -np.sin(lat) * np.sin(lon), np.cos(lat)], -1)
    scale = np.radians(np.longdouble(years) / 3_600_000)
    speed = [np.nan_to_num(np.asarray(p, np.longdouble)) * scale for p in (pmra, pmdec)]
    at = direction(ra, dec) + east * speed[0][:, None] + north * speed[1][:, None]
    return at / np.linalg.norm(at, axis=-1, keepdims=True)


def separations(one: Any, two: Any) -> Any:
    """All separations in arcseconds."""
    less = np.sqrt(((one[:, None] - two[None]) ** 2).sum(-1))
    more = np.sqrt(((one[:, None] + two[None]) ** 2).sum(-1))
    return np.degrees(2 * np.arctan2(less, more)).astype(float) * 3600


def expected(apart: Any, radius: float, *, is_nearest: bool, is_left: bool) -> list[tuple[int, int | None]]:
    found: list[tuple[int, int | None]] = []
    for i, row in enumerate(apart):
        near = [int(j) for j in np.lexsort((np.arange(len(row)), row.round(9))) if row[j] <= radius]
        found += [(i, j) for j in (near[:1] if is_nearest else near)]
        if not near and is_left:
            found.append((i, None))
    return sorted(found, key=str)


PLACE = st.tuples(
    st.sampled_from([0.0, 359.9999, 10.0, 180.0, 123.4]), st.sampled_from([-90.0, -89.9999, 0.0, 33.3, 89.9998, 90.0])
)
OFFSET = st.tuples(st.integers(-3, 3), st.integers(-3, 3))
POINTS = st.lists(st.tuples(PLACE, OFFSET), min_size=1, max_size=12)


def places(points: list[tuple[tuple[float, float], tuple[int, int]]]) -> tuple[Any, Any]:
    dec = np.clip([p[1] + o[1] * 0.4 * ARCSEC for p, o in points], -90, 90)
    return np.array([p[0] + o[0] * 0.4 * ARCSEC for p, o in points]) % 360, dec


@settings(max_examples=20, deadline=None)
@given(one=POINTS, two=POINTS, nearest=st.booleans(), left=st.booleans(), language=st.sampled_from(["adql", "sql"]))
def test_pairs_are_those_of_all_pairs(one: Any, two: Any, nearest: bool, left: bool, language: str) -> None:
    (ra, dec), (ra2, dec2) = places(one), places(two)
    catalog = Catalog((
        table("t", "id", {"id": np.arange(len(ra)), "ra": ra, "dec": dec}),
        table("u", "key", {"key": np.arange(len(ra2)), "ra": ra2, "dec": dec2}),
    ))  # fmt: skip
    words = f"'{'nearest' if nearest else 'all'}'{', ' + repr('left') if left else ''}"
    rows, bound = ask(catalog, f"SELECT id, key, separation_arcsec FROM CROSSMATCH(s.t, u, 1.01, {words}) AS m", language)
    apart = separations(direction(ra, dec), direction(ra2, dec2))
    pairs = sorted(((i, j) for i, j, _ in rows), key=str)
    if not nearest:
        assert pairs == expected(apart, 1.01, is_nearest=False, is_left=left)
    else:
        # Which of two partners is nearer by a rounding error is nobody's business.
        near = expected(apart, 1.01, is_nearest=True, is_left=left)
        assert [(i, j is None) for i, j in pairs] == [(i, j is None) for i, j in near]
        assert all(j is None or apart[i, j] <= apart[i].min() + 1e-9 for i, j in pairs)
    assert all(s is None if j is None else abs(s - apart[i, j]) < 1e-6 for i, j, s in rows)
    assert ("not ADQL 2.1: the table function CROSSMATCH" in bound.warnings) == (language == "adql")


def test_of_equally_near_partners_the_smallest_key_is_taken() -> None:
    catalog = Catalog((
        table("t", "id", {"id": [1, 2], "ra": [10.0, 10.0], "dec": [5.0, 5.0]}),
        table("u", "nr", {"nr": [7, 3, 9], "ra": [10.0] * 3, "dec": [5.0] * 3}),
    ))  # fmt: skip
    assert sorted(ask(catalog, "SELECT id, nr FROM CROSSMATCH(t, u, 1, 'nearest') AS m")[0]) == [(1, 3), (2, 3)]


@pytest.mark.parametrize("which", ["first", "second", "both"])
def test_positions_are_taken_at_a_common_epoch(which: str) -> None:
    rng = np.random.default_rng(3)
    rows = 40
    ra, dec = rng.uniform(0, 360, rows), np.r_[rng.uniform(-80, 80, rows - 3), 89.99, -89.999, 90.0]
    pmra, pmdec = rng.normal(0, 2000, rows), rng.normal(0, 2000, rows)
    pmra[5] = np.nan
    then = moved(ra, dec, pmra, pmdec, -15.5)
    ra2, dec2 = np.degrees(np.arctan2(then[:, 1], then[:, 0])).astype(float) % 360, np.degrees(np.arcsin(then[:, 2])).astype(float)
    dec2 = np.clip(dec2 + 0.3 * ARCSEC, -90, 90)
    motion = {"pmra": pa.array(pmra, from_pandas=True), "pmdec": pmdec}
    declared = {"pmra": "pmra", "pmdec": "pmdec"}
    new = table("new", "id", {"id": np.arange(rows), "ra": ra, "dec": dec, **motion}, epoch=2016.0, **declared)
    old = table("old", "key", {"key": np.arange(rows), "ra": ra2, "dec": dec2, **motion}, epoch=2000.5)
    if which == "both":
        old = dataclasses.replace(old, table=dataclasses.replace(old.table, **declared))
    catalog = Catalog((new, old))
    tables = "old, new" if which == "second" else "new, old"
    found, _ = ask(catalog, f"SELECT id, key, separation_arcsec FROM CROSSMATCH({tables}, 1.0, 'all') AS m")
    one, two = (direction(ra, dec), moved(ra2, dec2, pmra, pmdec, 15.5)) if which == "both" else (then, direction(ra2, dec2))
    apart = separations(one, two)
    pairs = sorted(((i, j) for i, j, _ in found), key=str)
    assert pairs == expected(apart, 1.0, is_nearest=False, is_left=False)
    assert len(found) >= rows - 5
    assert all(abs(s - apart[i, j]) < 1e-6 for i, j, s in found)
    still = dataclasses.replace(new, table=dataclasses.replace(new.table, epoch=None))
    without, _ = ask(Catalog((still, old)), "SELECT id FROM CROSSMATCH(new, old, 1.0, 'all') AS m")
    assert len(without) < rows / 4


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    rows = {"id": [1, 2], "ra": [1.0, 2.0], "dec": [3.0, 4.0]}
    odd = table("odd", "id", {**rows, "pmra": [1.0, 1.0], "pmdec": [1.0, 1.0]}, epoch=2000.0, pmra="pmra", pmdec="pmdec")
    columns = tuple(dataclasses.replace(c, unit="furlong") for c in odd.table.columns)
    return Catalog((
        table("t", "id", rows, epoch=2016.0), table("u", "id", rows), table("keyless", "", {"id": [1.0], "ra": [1.0], "dec": [3.0]}),
        table("placeless", "id", rows, ra="", dec=""), dataclasses.replace(odd, table=dataclasses.replace(odd.table, columns=columns)),
    ))  # fmt: skip


def test_names_of_both_get_a_number_with_a_warning(catalog: Catalog) -> None:
    rows, bound = ask(catalog, "SELECT * FROM CROSSMATCH(t, u, 1, 'all') AS m")
    assert [c.name for c in bound.columns] == ["id", "ra", "dec", "id_2", "ra_2", "dec_2", "separation_arcsec"]
    assert bound.warnings[1:] == ("columns of equal names were made unique: id_2, ra_2, dec_2",)
    assert len(rows) == 2
    assert bound.tables == (("s", "t"), ("s", "u"))


@pytest.mark.parametrize(
    ("text", "kind", "column", "said"),
    [
        ("CROSSMATCH(t, u)", QueryTypeError, 15, "4 or 5 arguments"),
        ("CROSSMATCH(t, u, 1, 'all', 'left', 1)", QueryTypeError, 15, "not 6"),
        ("CROSSMATCH(t, nope, 1, 'all')", UnknownNameError, None, "nope"),
        ("CROSSMATCH(t, 5, 1, 'all')", QueryTypeError, 29, "names of two tables"),
        ("CROSSMATCH(t, (SELECT id FROM u), 1, 'all')", QueryTypeError, None, "names of two tables"),
        ("CROSSMATCH(t, u, 0, 'all')", QueryTypeError, 32, "above 0"),
        ("CROSSMATCH(t, u, -1, 'all')", QueryTypeError, None, "above 0"),
        ("CROSSMATCH(t, u, 2e9, 'all')", QueryTypeError, 32, "up to 108000"),
        ("CROSSMATCH(t, u, ra, 'all')", QueryTypeError, 32, "number of arcseconds"),
        ("CROSSMATCH(t, u, 1, 'best')", QueryTypeError, 35, "'nearest' or 'all'"),
        ("CROSSMATCH(t, u, 1, all)", (QueryTypeError, QuerySyntaxError), None, ""),
        ("CROSSMATCH(t, u, 1, 'all', 'right')", QueryTypeError, 42, "'inner' or 'left'"),
        ("CROSSMATCH(placeless, u, 1, 'all')", QueryTypeError, 26, "declares no position"),
        ("CROSSMATCH(keyless, u, 1, 'nearest')", UnsupportedQueryError, 26, "no unique key"),
        ("CROSSMATCH(t, odd, 1, 'all')", UnsupportedQueryError, None, "furlong"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_refused_with_place_and_remedy(
    catalog: Catalog, text: str, kind: Any, column: int | None, said: str
) -> None:
    with pytest.raises(kind) as failed:
        ask(catalog, f"SELECT * FROM {text} AS m")
    error: QueryError = failed.value
    assert said in str(error)
    assert error.hint or kind is UnknownNameError
    if column is not None:
        assert error.span is not None
        assert error.span.column == column


def test_strict_adql_does_not_know_it(catalog: Catalog) -> None:
    with pytest.raises(QuerySyntaxError):
        ask(catalog, "SELECT * FROM CROSSMATCH(t, u, 1, 'all') AS m", "adql-strict")
    assert len(ask(catalog, "SELECT id FROM CROSSMATCH(keyless, u, 99999, 'all')")[0]) == 2
