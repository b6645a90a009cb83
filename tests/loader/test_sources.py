"""What every source must do, and what is special about Parquet and CSV."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from qengine.errors import InputError
from qengine.loader.sources.csv import CsvSource
from qengine.loader.sources.open import open_sources
from qengine.loader.sources.parquet import ParquetSource
from qengine.loader.sources.source import BATCH_ROWS, Source, check_same_columns
from tests.loader.stores import Site, sky

Maker = Callable[[pa.Table, Path], Source]


def _parquet(table: pa.Table, folder: Path) -> Source:
    pq.write_table(table, folder / "t.parquet", row_group_size=1000)
    return ParquetSource(folder / "t.parquet")


def _csv(table: pa.Table, folder: Path) -> Source:
    pacsv.write_csv(table, folder / "t.csv")
    return CsvSource(folder / "t.csv")


def _tsv(table: pa.Table, folder: Path) -> Source:
    with gzip.open(folder / "t.tsv.gz", "wb") as file:
        pacsv.write_csv(table, file, pacsv.WriteOptions(delimiter="\t"))
    return CsvSource(folder / "t.tsv.gz")


SAMPLE = pa.table(
    {
        "id": pa.array(range(300_000), pa.int64()),
        "x": pa.array([None if i % 7 == 0 else i / 8 for i in range(300_000)], pa.float64()),
        "s": pa.array([f"é{i},\n" if i % 5 else None for i in range(300_000)], pa.string()),
        "b": pa.array([i % 2 == 0 for i in range(300_000)], pa.bool_()),
    }
)


@pytest.mark.parametrize("make", [_parquet, _csv, _tsv])
class TestContract:
    """Every implementation of `Source`."""

    def test_gives_all_rows_in_order_each_time(self, make: Maker, tmp_path: Path) -> None:
        source = make(SAMPLE, tmp_path)
        for _ in range(2):
            batches = list(source.batches(source.schema.names))
            assert all(0 < batch.num_rows <= BATCH_ROWS * 4 for batch in batches)
            assert pa.Table.from_batches(batches).equals(SAMPLE)

    def test_says_what_it_is(self, make: Maker, tmp_path: Path) -> None:
        source = make(SAMPLE, tmp_path)
        assert source.schema == SAMPLE.schema
        assert 200_000 < source.rows < 700_000  # the sample has line ends inside fields
        assert 4 < source.row_bytes < 200
        assert Path(source.name) == Path(source.identity.uri)
        assert source.identity.bytes == Path(source.name).stat().st_size

    def test_gives_only_the_columns_asked_for_in_that_order(self, make: Maker, tmp_path: Path) -> None:
        source = make(SAMPLE, tmp_path)
        assert all(batch.schema.names == ["s", "id"] for batch in source.batches(["s", "id"]))

    def test_may_be_empty(self, make: Maker, tmp_path: Path) -> None:
        source = make(SAMPLE.slice(0, 0), tmp_path)
        assert source.schema.names == SAMPLE.schema.names
        assert sum(batch.num_rows for batch in source.batches(["id"])) == 0

    def test_a_damaged_file_is_named(self, make: Maker, tmp_path: Path) -> None:
        path = Path(make(SAMPLE, tmp_path).name)
        raw = path.read_bytes()
        path.write_bytes(raw[: len(raw) // 2] + (b"" if path.suffix != ".csv" else b'\n1,2,"x\n'))
        with pytest.raises(InputError, match=str(path)):
            list(open_sources([path])[0].batches(["id", "x", "s", "b"]))


def test_damage_inside_a_parquet_file_is_an_error_with_the_place(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(SAMPLE, path, row_group_size=50_000, compression="zstd")
    raw = bytearray(path.read_bytes())
    middle = pq.read_metadata(path).row_group(3).column(0).data_page_offset
    raw[middle : middle + 200] = bytes(200)
    path.write_bytes(raw)
    with pytest.raises(InputError, match=r"t\.parquet: cannot read past row \d+"):
        list(ParquetSource(path).batches(["id"]))


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("id,x\n1,1.5\n2,two\n3,3\n", "row 3, column 'x'"),
        ("id,x\n1,1.5\n2\n3,3\n", "row 3"),
        ("# made by hand\nid,x\n1,1\n2,2,2\n", "row 4"),
    ],
)
def test_bad_csv_rows_are_named(tmp_path: Path, text: str, where: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=where) as error:
        list(CsvSource(path, types={"x": pa.float64(), "id": pa.int64()}).batches(["id", "x"]))
    assert str(path) in error.value.message


def test_a_bad_number_far_down_is_named_with_its_row(site: Site) -> None:
    path = site.inputs / "t.csv"
    lines = [f"{i},{i % 360},{i % 90},{i}" for i in range(1_200_000)]
    lines[1_100_000] = "1100000,1,2,oops"
    path.write_text("id,ra,dec,n\n" + "\n".join(lines) + "\n")
    with pytest.raises(InputError, match=r"row 1100002, column 'n'.*'oops'"):
        site.load(path, key="id", rows_per_tile=1_000_000)
    assert site.registry.snapshot_number("demo") == 0


@pytest.mark.parametrize(
    ("text", "names", "rows"),
    [
        ("a,b\n1,2\n", ["a", "b"], [{"a": 1, "b": 2}]),
        ("a\tb\n1\tx y\n", ["a", "b"], [{"a": 1, "b": "x y"}]),
        ("a;b\n1;2,5\n", ["a", "b"], [{"a": 1, "b": "2,5"}]),
        ("a|b\n1|\\N\n", ["a", "b"], [{"a": 1, "b": None}]),
        ("# c1\n# a,b\n1,2.5\n", ["a", "b"], [{"a": 1, "b": 2.5}]),
        ("# comment\n\na,b\nNULL,NaN\n7,1e3\n", ["a", "b"], [{"a": None, "b": None}, {"a": 7, "b": 1000.0}]),
        ('a,b\n1,""\n2,\n3,"NULL"\n', ["a", "b"], [{"a": 1, "b": ""}, {"a": 2, "b": None}, {"a": 3, "b": "NULL"}]),
        ("a\n5\n", ["a"], [{"a": 5}]),
        ("a,b\r\n1,2\r\n", ["a", "b"], [{"a": 1, "b": 2}]),
        ("\ufeffa,b\n1,2\n", ["a", "b"], [{"a": 1, "b": 2}]),
    ],
)
def test_dialects(tmp_path: Path, text: str, names: list[str], rows: list[dict[str, object]]) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode())
    source = CsvSource(path)
    assert source.schema.names == names
    assert pa.Table.from_batches(list(source.batches(names))).to_pylist() == rows


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "empty"), ("1,2\n3,4\n", "no header"), ("a,a\n1,2\n", "two columns"), ("a,\n1,2\n", "no name")],
)
def test_csv_without_usable_header(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        CsvSource(path)


def test_csv_types_are_inferred_beyond_nulls_and_unified_over_files(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("i,x,n\n" + "1,2,\n" * 1_500_000 + "1,2,4.5\n")
    (tmp_path / "b.csv").write_text("i,x,n\n1,2.5,\n")
    sources = open_sources([tmp_path])
    schema = check_same_columns(sources)
    assert schema.field("i").type == pa.int64()
    assert schema.field("x").type == pa.float64()
    assert schema.field("n").type in (pa.float64(), pa.string())


def test_files_without_values_in_a_column_have_no_say_in_its_type(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("i,x,s\n")
    (tmp_path / "b.csv").write_text("i,x,s\n1,,\n")
    (tmp_path / "c.csv").write_text("i,x,s\n2,2.5,\n")
    sources = open_sources([tmp_path])
    assert check_same_columns(sources).types == [pa.int64(), pa.float64(), pa.string()]
    rows = [row for source in sources for batch in source.batches(["i", "x", "s"]) for row in batch.to_pylist()]
    assert rows == [{"i": 1, "x": None, "s": None}, {"i": 2, "x": 2.5, "s": None}]
    [declared] = open_sources([tmp_path / "a.csv"], types={"i": pa.int64(), "x": pa.float64(), "s": pa.string()})
    assert declared.schema.types == [pa.int64(), pa.float64(), pa.string()]


def test_inputs_are_files_directories_and_patterns_each_file_once(tmp_path: Path) -> None:
    for name in ("b.parquet", "a.parquet", "sub/c.parquet", "_meta/d.parquet", "sub/.hidden.parquet", "notes.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        if name.endswith(".md"):
            (tmp_path / name).write_text("x")
        else:
            pq.write_table(pa.table({"a": [1]}), tmp_path / name)
    names = [Path(s.name).name for s in open_sources([tmp_path / "b.parquet", tmp_path, str(tmp_path / "*.parquet")])]
    assert names == ["b.parquet", "a.parquet", "c.parquet"]


@pytest.mark.parametrize("name", ["missing.parquet", "none*.parquet", "notes.md", "empty"])
def test_inputs_that_lead_nowhere(tmp_path: Path, name: str) -> None:
    (tmp_path / "notes.md").write_text("x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=name.replace("*", r"\*")):
        open_sources([tmp_path / name])


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"id": [1], "ra": [1.0]}, r"b\.parquet: column 'dec' is missing"),
        ({"id": [1], "ra": [1.0], "dec": [1.0], "z": [1]}, r"b\.parquet: column 'z' is not in .*a\.parquet"),
        ({"id": ["x"], "ra": [1.0], "dec": [1.0]}, r"b\.parquet: column 'id' is string, but int64"),
    ],
)
def test_inputs_must_have_the_same_columns(site: Site, other: dict[str, list[object]], message: str) -> None:
    first = site.write("a.parquet", {"id": [2], "ra": [1.0], "dec": [1.0]})
    with pytest.raises(InputError, match=message):
        site.load([first, site.write("b.parquet", other)])


def test_columns_equal_but_for_case_are_refused(site: Site) -> None:
    with pytest.raises(InputError, match="equal but for case"):
        site.load(site.write("a.parquet", {"ra": [1.0], "RA": [1.0], "dec": [2.0]}))


def test_inputs_in_another_column_order_and_several_files(site: Site) -> None:
    columns = sky(100)
    table = pa.table(columns)
    first = site.write("a.parquet", table.slice(0, 60))
    second = site.write("b.parquet", table.slice(60).select(["name", "dec", "ra", "id", "mag"]))
    site.load([first, second], key="id")
    rows = site.read(site.snapshot().home).sort_by("id")
    assert rows["mag"].to_pylist() == table.sort_by("id")["mag"].to_pylist()
    wanted = dict(zip(columns["id"].tolist(), [0] * 60 + [1] * 49, strict=True))
    assert [wanted[key] for key in rows["id"].to_pylist()] == rows["_input"].to_pylist()
