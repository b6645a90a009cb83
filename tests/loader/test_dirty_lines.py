"""Lines of texts without anything in them: NULLs of a table of one column, and nothing in any other."""

from __future__ import annotations

import csv
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv
import pytest

from qengine.catalog.model import TableKind
from qengine.loader.sources.csv import CsvOptions, CsvSource
from tests.loader.stores import Site


def values(path: Path, options: CsvOptions | None = None) -> list[object]:
    source = CsvSource(path, options=options)
    name = source.schema.names[0]
    return [value for batch in source.batches([name]) for value in batch.column(0).to_pylist()]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x\n1\n\n3\n", [1, None, 3]),
        ("x\n1\n\n3", [1, None, 3]),
        ("x\n\n\n3\n\n", [None, None, 3, None]),
        ("x\r\n1\r\n\r\n3\r\n", [1, None, 3]),
        ("x\na\n\n\"\"\nb\n", ["a", None, "", "b"]),
        ("\n# comment\n\nx\n1\n\n", [1, None]),
        ("# x\n1\n\n2\n\n", [1, None, 2, None]),
        ("x\n", []),
        ("x\n\n", [None]),
        ("x\n" + "\n" * 3_000_000 + "7\n", [None] * 3_000_000 + [7]),
    ],
)  # fmt: skip
def test_a_blank_line_is_the_null_of_one_column(tmp_path: Path, text: str, expected: list[object]) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode())
    assert values(path) == expected


def test_blank_lines_before_the_first_row_where_names_are_declared(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("\n1\n\n2\n")
    assert values(path, CsvOptions(names=("x",))) == [None, 1, None, 2]
    path.write_text("# a comment\n\n1\n")
    assert values(path, CsvOptions(names=("x",))) == [None, 1]


@pytest.mark.parametrize("writer", ["arrow", "csv", "plain"])
def test_what_writers_make_of_one_column_comes_back(tmp_path: Path, writer: str) -> None:
    given = [None, "a", None, None, "b", None]
    path = tmp_path / "t.csv"
    if writer == "arrow":
        pacsv.write_csv(pa.table({"x": given}), path, pacsv.WriteOptions(quoting_style="none"))
    elif writer == "csv":
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([["x"], *([value or "\\N"] for value in given)])
    else:
        path.write_text("".join(f"{value or ''}\n" for value in ["x", *given]))
    site = Site(tmp_path)
    report = site.load(path, kind=TableKind.REPLICATED)
    assert (report.read, report.stored) == (6, 6)
    assert site.read(site.snapshot().home)["x"].to_pylist() == given


def test_blank_lines_between_rows_of_several_columns_are_nothing(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("x,y\n\n1,2\n\n,\n\n")
    source = CsvSource(path)
    rows = pa.Table.from_batches(source.batches(["x", "y"]))
    assert rows.to_pylist() == [{"x": 1, "y": 2}, {"x": None, "y": None}]
