"""What every source must do, whatever the format."""

from __future__ import annotations

import hashlib
import pickle
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from qengine.errors import InputError
from qengine.loader.sources.open import InputOptions, open_sources, reopen
from qengine.loader.sources.source import BATCH_ROWS, FILE, Recipe
from tests.loader.sources.makers import MAKERS, WORDS, Maker, table


@pytest.fixture(params=MAKERS, scope="module")
def maker(request: pytest.FixtureRequest) -> Maker:
    return MAKERS[request.param]


def plain(rows: pa.Table) -> pa.Table:
    """The rows in the widest types, NaN and empty texts as NULL: what formats cannot tell apart."""
    columns = {}
    for name in rows.schema.names:
        values = rows[name]
        if pa.types.is_floating(values.type):
            values = pc.cast(values, pa.float64())
            values = pc.if_else(pc.is_nan(values), pa.scalar(None, pa.float64()), values)
        elif pa.types.is_integer(values.type):
            values = pc.cast(values, pa.int64())
        elif pa.types.is_string(values.type):
            values = pc.if_else(pc.equal(values, ""), pa.scalar(None, pa.string()), values)
        columns[name] = values
    return pa.table(columns)


def read_all(path: Path) -> None:
    for source in open_sources([path]):
        for _ in source.batches(source.schema.names):
            pass


def test_all_rows_in_order_each_time(maker: Maker, tmp_path: Path) -> None:
    rows = table(has_unicode=maker.has_unicode)
    source = maker.make(rows, tmp_path)
    assert source.schema.names == rows.schema.names
    for _ in range(2):
        batches = list(source.batches(source.schema.names))
        assert all(0 < batch.num_rows <= BATCH_ROWS * 4 for batch in batches)
        assert all(batch.schema.equals(source.schema) for batch in batches)
        assert plain(pa.Table.from_batches(batches)).equals(plain(rows))


def test_columns_asked_for_in_that_order(maker: Maker, tmp_path: Path) -> None:
    source = maker.make(table(100, has_unicode=maker.has_unicode), tmp_path)
    batches = list(source.batches(["name", "id"]))
    assert all(batch.schema.names == ["name", "id"] for batch in batches)
    assert sum(batch.num_rows for batch in batches) == 100
    with pytest.raises(InputError, match="there is no column 'nothing'"):
        list(source.batches(["nothing"]))


def test_words_travel_in_the_metadata_of_fields(maker: Maker, tmp_path: Path) -> None:
    source = maker.make(table(10, has_unicode=maker.has_unicode), tmp_path)
    for name in source.schema.names:
        wanted = {key: value for key, value in WORDS.get(name, {}).items() if key in maker.words}
        found = {key.decode(): value.decode() for key, value in (source.schema.field(name).metadata or {}).items()}
        assert found == wanted


def test_counts(maker: Maker, tmp_path: Path) -> None:
    source = maker.make(table(3_000, has_unicode=maker.has_unicode), tmp_path)
    assert 4 < source.row_bytes < 500
    if maker.is_counted:
        assert source.rows == pytest.approx(3_000, rel=0.02)
    else:
        assert 500 < source.rows < 20_000


def test_who_it_is(maker: Maker, tmp_path: Path) -> None:
    path = maker.write(table(20, has_unicode=maker.has_unicode), tmp_path)
    [source] = open_sources([path])
    content = path.read_bytes()
    assert (source.name, source.identity.uri, source.identity.label) == (str(path), str(path), str(path))
    assert (source.identity.kind, source.identity.bytes) == (FILE, len(content))
    assert source.sha256() == source.version() == hashlib.sha256(content).hexdigest()
    [named] = open_sources([path], options=InputOptions(label="tract 7"))
    assert (named.identity.label, named.version()) == ("tract 7", source.version())


def test_opens_again_elsewhere(maker: Maker, tmp_path: Path) -> None:
    source = maker.make(table(50, has_unicode=maker.has_unicode), tmp_path)
    recipe = Recipe.from_json(pickle.loads(pickle.dumps(source.recipe.to_json())))
    again = reopen(recipe)
    assert (again.schema, again.identity, again.version()) == (source.schema, source.identity, source.version())
    names = source.schema.names
    first, second = (pa.Table.from_batches(list(each.batches(names))) for each in (source, again))
    assert plain(second).equals(plain(first))


def test_no_rows(maker: Maker, tmp_path: Path) -> None:
    rows = table(5, has_unicode=maker.has_unicode).slice(0, 0)
    if not maker.has_types:
        with pytest.raises(InputError, match="there are no rows, so that nothing says what types"):
            maker.make(rows, tmp_path)
        return
    source = maker.make(rows, tmp_path)
    assert source.schema.names == table(5).schema.names
    assert sum(batch.num_rows for batch in source.batches(["id", "name"])) == 0
    assert source.rows <= 1 or not maker.is_counted


def test_empty_file(maker: Maker, tmp_path: Path) -> None:
    path = maker.write(table(5, has_unicode=maker.has_unicode), tmp_path)
    path.write_bytes(b"")
    with pytest.raises(InputError, match=f"{path}.*empty"):
        open_sources([path])


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.97])
def test_truncated_file(maker: Maker, tmp_path: Path, kept: float) -> None:
    rows = table(6_000, has_unicode=maker.has_unicode)
    path = maker.write(rows, tmp_path)
    content = path.read_bytes()
    cut = content[: int(len(content) * kept)]
    if path.suffix in (".csv", ".ecsv"):  # text has no end of its own: cut it within a quoted field
        cut = cut[: cut.rfind(b",")]
    path.write_bytes(cut)
    with pytest.raises(InputError, match=path.name):
        read_all(path)


def test_rubbish(maker: Maker, tmp_path: Path) -> None:
    path = maker.write(table(5, has_unicode=maker.has_unicode), tmp_path)
    path.write_bytes(bytes(range(256)) * 40)
    with pytest.raises(InputError, match=path.name):
        read_all(path)


def test_memory_does_not_grow_with_the_file(maker: Maker, tmp_path: Path) -> None:
    rows = table(16_000, has_unicode=maker.has_unicode)
    source = maker.make(rows, tmp_path)
    source._row_bytes = 2_000_000  # batches of the least size
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    try:
        most, count = 0, 0
        for batch in source.batches(["id", "name"]):
            count += batch.num_rows
            most = max(most, pa.total_allocated_bytes() - before + tracemalloc.get_traced_memory()[0])
            del batch
    finally:
        tracemalloc.stop()
    assert count == 16_000
    assert most < 16 << 20
