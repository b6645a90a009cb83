"""Dirty inputs: rows in = rows stored + quarantined + filtered + skipped, or a clear error and nothing half visible.

Every kind of dirt comes in every format that can say it, to a director, a child and a replicated table, as the first load of the
table and as an addition to one that is there. What is stored is counted in the files, not in the report; what is put aside is
looked up in the input by the file and row that the quarantine names.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qengine.catalog.model import TableKind
from qengine.errors import DuplicateKeyError, InputError, QEngineError
from qengine.loader.request import ExtraColumns, LoadReport, MissingColumns
from tests.loader.sources import makers
from tests.loader.stores import Site

FORMATS: dict[str, Callable[[pa.Table, Path], Path]] = {
    "parquet": makers.parquet, "csv": makers.csv, "fits": makers.fits, "votable": makers.votable_text,
    "binary2": makers.votable_binary2, "ecsv": makers.ecsv, "arrow": makers.arrow_file,
}  # fmt: skip
TABLES = ("director", "child", "replicated")
WHEN = ("load", "append")
QUICK = {
    ("parquet", "director", "load"),
    ("parquet", "child", "append"),
    ("csv", "director", "append"),
    ("csv", "replicated", "load"),
}
CASES = [pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow) for case in itertools.product(FORMATS, TABLES, WHEN)]
INF, NAN = math.inf, math.nan

WORDS: dict[str, dict[str, Any]] = {
    "director": {"kind": TableKind.DIRECTOR, "key": "id"},
    "child": {"kind": TableKind.CHILD, "director": "base", "director_key": "oid", "key": "id"},
    "replicated": {"kind": TableKind.REPLICATED},
}
CLEAN = {
    "id": [1, 2, 3, 4],
    "oid": [1, 2, 3, 1],
    "ra": [10.5, 20.5, 359.5, 0.25],
    "dec": [5.5, -45.5, 89.5, 0.5],
    "mag": [1.5, 2.5, 3.5, 4.5],
}
TYPES = {"id": pa.int64(), "oid": pa.int64(), "ra": pa.float64(), "dec": pa.float64(), "mag": pa.float64()}


def rows(**changed: Sequence[Any]) -> pa.Table:
    """Rows 11, 12, 13, with some of their columns changed."""
    plain = {
        "id": [11, 12, 13],
        "oid": [1, 2, 3],
        "ra": [30.5, 40.5, 50.5],
        "dec": [3.5, 4.5, 5.5],
        "mag": [0.5, 1.5, 2.5],
        **changed,
    }
    return pa.table({name: pa.array(values, TYPES.get(name), from_pandas=False) for name, values in plain.items()})


@dataclass(frozen=True, kw_only=True)
class Dirt:
    """Rows that are dirty, and what becomes of them: of a director `quarantined`, or an `error`; other tables take them, unless
    `error_of` says what they say. `words` are what the load asks for."""

    rows: pa.Table
    quarantined: int = 0
    error: str = ""
    others: str = ""
    words: Mapping[str, Any] = field(default_factory=dict)


DIRT = {
    "null positions": Dirt(rows=rows(ra=[None, 40.5, None], dec=[3.5, None, None])),
    "nan positions": Dirt(rows=rows(ra=[NAN, 40.5, NAN], dec=[3.5, NAN, NAN])),
    "infinite": Dirt(rows=rows(ra=[INF, 40.5, -INF], dec=[3.5, -INF, NAN]), quarantined=3),
    "infinite others": Dirt(rows=rows(mag=[INF, -INF, NAN])),
    "beyond the poles": Dirt(rows=rows(dec=[90.5, 4.5, -90.0001]), quarantined=2),
    "ra 370": Dirt(rows=rows(ra=[30.5, 370.0, 50.5]), error="row 2, column 'ra': 370.0 is outside"),
    "ra -10": Dirt(rows=rows(ra=[30.5, 40.5, -10.0]), error="row 3, column 'ra': -10.0 is outside"),
    "ra 370, wrapped": Dirt(rows=rows(ra=[-10.0, 370.0, 360.0]), words={"ra_wrap": True}),
    "wrapped and bad": Dirt(rows=rows(ra=[-10.0, 370.0, INF], dec=[99.0, 4.5, 5.5]), words={"ra_wrap": True}, quarantined=2),
    "equal keys": Dirt(rows=rows(id=[11, 12, 11]), error="'id' is not unique"),
    "equal keys, one aside": Dirt(rows=rows(id=[11, 12, 11], dec=[3.5, 4.5, 95.0]), quarantined=1),
    "null keys": Dirt(rows=rows(id=[None, 12, None])),
    "null kin": Dirt(rows=rows(oid=[None, 999, 1])),
    "all null": Dirt(rows=rows(id=[None] * 3, oid=[None] * 3, ra=[None] * 3, dec=[None] * 3, mag=[None] * 3)),
    "filtered": Dirt(rows=rows(ra=[370.0, 40.5, 50.5], dec=[3.5, 4.5, 95.0]), words={"filter": "ra < 360"}, quarantined=1),
    "all filtered": Dirt(rows=rows(ra=[370.0] * 3), words={"filter": "ra < 360"}),
    "all aside": Dirt(rows=rows(dec=[91.0, 92.0, INF]), quarantined=3),
}  # fmt: skip


class Bench:
    """A site whose tables can be dirtied: `base` is a clean director; the table `t` is there already when something is appended."""

    def __init__(self, site: Site, table: str, when: str) -> None:
        self.site = site
        self.table = table
        self.words = {"table": "t", "rows_per_tile": 50, "workers": 1, **WORDS[table]}
        clean = self.file("parquet", pa.table({name: pa.array(values, TYPES[name]) for name, values in CLEAN.items()}), "clean")
        if table == "child":
            site.load(clean, table="base", key="id")
        if when == "append":
            site.load(clean, **self.words)
        self.before = self.count()

    def file(self, form: str, table: pa.Table, name: str = "dirty") -> Path:
        folder = self.site.inputs / name
        folder.mkdir(exist_ok=True)
        return FORMATS[form](table, folder)

    def load(self, *inputs: Path, **words: Any) -> LoadReport:
        return self.site.load(inputs, **{**self.words, **words})

    def count(self) -> int:
        """Count the rows in the files of the table."""
        found = self.site.registry.catalog().find("demo", "t")
        parts = (found.home, found.orphan) if found is not None else ()
        return sum(pq.read_metadata(self.site.store.path(uri)).num_rows for each in parts for uri in each.uri.to_pylist())

    def state(self) -> tuple[Any, ...]:
        """What readers can see, and all that lies in the store."""
        registry = self.site.registry
        inputs = [(one.table, one.label, one.version, one.replaced_by) for one in registry.inputs("demo")]
        files = {name for name in self.site.files() if not name.endswith(".load.lock")}
        return registry.snapshot_number("demo"), sorted(registry.manifest_digests().items()), inputs, files

    def refuses(self, *inputs: Path, match: str, kind: type[QEngineError] = QEngineError, **words: Any) -> QEngineError:
        """Check that a load fails with this message and leaves all as it was, and that a clean load goes well after it."""
        before = self.state()
        with pytest.raises(kind, match=match) as error:
            self.load(*inputs, **words)
        assert self.state() == before
        assert [one.state.value for one in self.site.registry.loads()].count("open") == 0
        good = self.file("parquet", rows(id=[101, 102, 103]), "good")
        assert self.load(good).stored == 3
        assert self.count() == self.before + 3
        return error.value

    def accounts(self, report: LoadReport, given: int) -> None:
        """Check that no row of `given` is lost or invented: in the report, the registry, the files."""
        assert report.read == given
        assert report.stored + report.quarantined + report.filtered + report.skipped == given
        assert self.count() == self.before + report.stored
        own = [one for one in self.site.registry.inputs("demo") if one.load == self.site.registry.loads()[-1].number]
        assert sum(one.rows_read for one in own) == given
        assert sum(one.rows_stored for one in own) == report.stored
        assert sum(one.rows_quarantined for one in own) == report.quarantined
        assert sum(one.rows_filtered for one in own) == report.filtered
        assert bool(report.quarantine) == bool(report.quarantined)

    def aside(self, report: LoadReport) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = pq.read_table(self.site.store.path(report.quarantine)).to_pylist()
        assert len(found) == report.quarantined
        return found


def same(mine: Any, other: Any) -> bool:
    """Say whether a value came through; NaN is stored as NULL."""
    is_lost = mine is None or (isinstance(mine, float) and math.isnan(mine))
    return other is None if is_lost else bool(mine == other)


@pytest.mark.parametrize(("form", "table", "when"), CASES)
def test_dirty_rows(tmp_path: Path, form: str, table: str, when: str) -> None:
    for number, (name, dirt) in enumerate(DIRT.items()):
        bench = Bench(Site(tmp_path / str(number)), table, when)
        path = bench.file(form, dirt.rows)
        if form == "csv" and name == "all null" and when == "load" and table != "replicated":
            bench.refuses(path, match="column '(ra|oid)' (holds|is) string")  # nothing says that these are numbers
            continue
        if table == "director" and dirt.error:
            error = bench.refuses(path, match=dirt.error, **dirt.words)
            assert str(path) in str(error) or isinstance(error, DuplicateKeyError), name
            continue
        report = bench.load(path, **dirt.words)
        bench.accounts(report, dirt.rows.num_rows)
        assert report.quarantined == (dirt.quarantined if table == "director" else 0), name
        if not report.quarantined:
            continue
        given = dirt.rows.to_pylist()
        for row in bench.aside(report):
            assert row["_reason"], name
            assert row["_file"] == str(path)
            wanted = given[row["_row"] - 1]
            is_wrapped = "ra_wrap" in dirt.words
            assert all(same(wanted[each], row[each]) for each in wanted if each != "ra" or not is_wrapped), (name, row)


def cut(path: Path, part: float) -> Path:
    """Leave only the first part of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    return path


@pytest.mark.parametrize(("form", "table", "when"), CASES)
def test_truncated_files(tmp_path: Path, form: str, table: str, when: str) -> None:
    many = pa.concat_tables([rows(id=[i, i + 1, i + 2]) for i in range(10, 3000, 3)])
    for number, part in enumerate((0.0, 0.01, 0.3, 0.7, 0.95)):
        bench = Bench(Site(tmp_path / str(number)), table, when)
        path = cut(bench.file(form, many), part)
        if form == "csv":
            # a text that ends with a whole line cannot be told from a shorter one; this one ends within the second field
            lines = path.read_text().rpartition("\n")[0]
            path.write_text(f"{lines}\n77777,1" if part else "")
        bench.refuses(path, match=path.name)


@pytest.mark.parametrize(("form", "table", "when"), CASES)
def test_one_bad_file_among_good_ones(tmp_path: Path, form: str, table: str, when: str) -> None:
    bench = Bench(Site(tmp_path), table, when)
    good, bad = bench.file(form, rows(), "one"), bench.file(form, rows(id=[21, 22, 23]), "two")
    if form == "csv":
        bad.write_text(bad.read_text() + "24,1\n")
    else:
        cut(bad, 0.6)
    bench.refuses(good, bad, match="two/t")


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("table", TABLES)
def test_broken_lines(tmp_path: Path, table: str, when: str) -> None:
    """A text that has no types yet may become a table of texts; everything else is an error that names file, row or column."""
    cases = {
        "14,1,30.5,3.5": "Expected 5 columns, got 4",
        "14,1,30.5,3.5,1.5,9": "Expected 5 columns, got 6",
        "14,1,thirty,3.5,1.5": "'ra'",
        "14,1,30.5,3.5,bright": "'mag'",
        "14.5,1,30.5,3.5,1.5": "'id'|is double",
        '14,1,30.5,3.5,"1.5': "line 5: .* is not closed|'mag'",
        "99999999999999999999,1,30.5,3.5,1.5": "'id'",
    }
    for number, (line, words) in enumerate(cases.items()):
        bench = Bench(Site(tmp_path / str(number)), table, when)
        path = bench.file("csv", rows())
        path.write_text(path.read_text() + line + "\n15,2,31.5,3.5,2.5\n")
        is_widened = when == "load" and number in (2, 3, 4) and not (table == "director" and number != 3)
        if is_widened and not (table == "child" and number == 4):
            bench.accounts(bench.load(path), 5)
        else:
            bench.refuses(path, match=words)


def test_a_quote_that_is_not_closed_swallows_no_row(tmp_path: Path) -> None:
    plain = "id,ra,dec,name\n1,1.5,2.5,a\n2,2.5,2.5,{}\n3,3.5,2.5,{}\n4,4.5,2.5,d\n"
    for number, (first, second, stored) in enumerate(
        [
            ('"b', '"c"', 0),
            ('"b', "c", 0),
            ('"b"x', "c", 4),
            ('5" dome', '6" dome', 4),  # quotes within a text are just that
            ('"b ""5"" dome"', '"line\nline"', 4),
            ('"b"', '"c', 0),
        ]
    ):
        site = Site(tmp_path / str(number))
        path = site.inputs / "t.csv"
        path.write_text(plain.format(first, second))
        if stored:
            assert site.load(path, key="id").stored == stored
        else:
            with pytest.raises(InputError, match=r"t\.csv: line \d: .*quote"):
                site.load(path, key="id")
            assert site.registry.snapshot_number("demo") == 0


def test_integers_of_texts_are_never_rounded(tmp_path: Path) -> None:
    big = 2**60 + 1
    cases = [[f"a\n{big}\n{10**20}\n"], [f"a\n{big}\n1.5\n"], [f"a\n{big}\n", "a\n1.5\n"]]
    for number, texts in enumerate(cases):
        site = Site(tmp_path / str(number))
        paths = [site.inputs / f"{at}.csv" for at in range(len(texts))]
        for path, text in zip(paths, texts, strict=True):
            path.write_text(text)
        with pytest.raises(InputError, match="column 'a'"):
            site.load(paths, kind=TableKind.REPLICATED)


def renamed(given: pa.Table, **names: str) -> pa.Table:
    return given.rename_columns([names.get(name, name) for name in given.column_names])


def retyped(given: pa.Table, name: str, kind: pa.DataType) -> pa.Table:
    return given.set_column(given.column_names.index(name), name, given[name].cast(kind))


@pytest.mark.parametrize(("form", "table", "when"), CASES)
def test_columns_that_differ(tmp_path: Path, form: str, table: str, when: str) -> None:
    """Two files, of which the second has other columns; and what may be asked for instead of the error."""
    other = rows(id=[21, 22, 23])
    cases: dict[str, tuple[pa.Table, str, dict[str, Any]]] = {
        "extra": (other.append_column("more", pa.array([1.5, 2.5, 3.5])), "'?more'?", {"extra_columns": ExtraColumns.DROP}),
        "kept": (other.append_column("more", pa.array([1.5, 2.5, 3.5])), "'?more'?", {"extra_columns": ExtraColumns.KEEP}),
        "missing": (other.drop_columns(["mag"]), "'?mag'?", {"missing_columns": MissingColumns.NULL} if when == "append" else {}),
        "renamed": (renamed(other, mag="magnitude"), "'?mag(nitude)?'?", {}),
        "case": (renamed(other, mag="MAG"), "'?mag'?|'?MAG'?", {}),
        "retyped": (retyped(other, "mag", pa.string()), "'?mag'?", {}),
        "narrowed": (retyped(rows(id=[21, 22, 23], ra=[1.0, 2.0, 3.0]), "ra", pa.int32()), "'?ra'?", {}),
    }
    for number, (name, (bad, words, remedy)) in enumerate(cases.items()):
        bench = Bench(Site(tmp_path / str(number)), table, when)
        first, second = bench.file(form, rows(), "one"), bench.file(form, bad, "two")
        if form == "csv" and name in ("retyped", "narrowed"):
            bench.accounts(bench.load(first, second), 6)  # the text is that of numbers
            continue
        bench.refuses(first, second, match=words)
        if remedy:
            bench = Bench(Site(tmp_path / f"{number} again"), table, when)
            first, second = bench.file(form, rows(), "one"), bench.file(form, bad, "two")
            bench.accounts(bench.load(first, second, **remedy), 6)
            found = bench.site.snapshot("t").table.column("more")
            assert (found is not None) == (name == "kept")


@pytest.mark.parametrize(("form", "table", "when"), CASES)
def test_names_that_are_equal_but_for_case(tmp_path: Path, form: str, table: str, when: str) -> None:
    bench = Bench(Site(tmp_path), table, when)
    path = bench.file(form, rows().append_column("RA", pa.array([1.5, 2.5, 3.5])))
    bench.refuses(path, match="equal but for case|case")


@pytest.mark.parametrize(("form", "table", "when"), CASES)
def test_files_without_rows(tmp_path: Path, form: str, table: str, when: str) -> None:
    """A table without rows is a table: it can be counted, and filled later."""
    bench = Bench(Site(tmp_path), table, when)
    empty = bench.file(form, rows().slice(0, 0))
    if form == "csv" and when == "load":
        bench.refuses(empty, match="nothing says what types")
        return
    bench.accounts(bench.load(empty), 0)
    good = bench.file(form, rows(), "good")
    bench.accounts(bench.load(good), 3)
    assert bench.site.snapshot("t").rows == bench.count()


@pytest.mark.parametrize(("form", "table", "when"), [case for case in CASES if case.values[0] not in ("csv", "binary2", "ecsv")])
def test_radians_in_metadata(tmp_path: Path, form: str, table: str, when: str) -> None:
    radians = rows(ra=[0.1, 0.2, INF], dec=[0.1, NAN, 0.3])
    fields = [each.with_metadata({"unit": "rad"}) if each.name in ("ra", "dec") else each for each in radians.schema]
    radians = pa.table(radians.columns, schema=pa.schema(fields))
    bench = Bench(Site(tmp_path / "a"), table, when)
    path = bench.file(form, radians)
    error = bench.refuses(path, match=r"t\.\w+: .*rad")
    assert "--convert-position" in error.hint
    if when == "load":
        bench = Bench(Site(tmp_path / "b"), table, when)
        report = bench.load(bench.file(form, radians), convert_position=True)
        bench.accounts(report, 3)
        if table == "director":
            [row] = bench.aside(report)
            assert (row["_row"], row["id"], row["ra_original"]) == (3, 13, INF)
            stored = {one["id"]: one["ra"] for one in bench.site.read(bench.site.snapshot("t").home).to_pylist()}
            assert stored == {11: pytest.approx(math.degrees(0.1))}
