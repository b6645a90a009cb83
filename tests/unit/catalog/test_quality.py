"""Files of quality: written whole, by one process after another."""

from __future__ import annotations

from pathlib import Path

from qengine.catalog.quality import SCHEMA, quality_path, write_quality
from qengine.storage.objects import Store


def test_what_a_writer_that_died_has_left_goes_away(tmp_path: Path) -> None:
    files = Store(tmp_path).files
    path = quality_path(tmp_path, "demo", "1234")
    path.parent.mkdir(parents=True)
    dead, other = path.with_name(f".{path.name}.0a0b.tmp"), path.with_name(".5678.parquet.0a0b.tmp")
    for each in (dead, other):
        each.write_bytes(b"half")
    write_quality(files, "demo", "1234", SCHEMA.empty_table())
    assert sorted(each.name for each in path.parent.iterdir()) == [other.name, path.name]
