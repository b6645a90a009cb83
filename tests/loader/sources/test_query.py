"""The answer to a query as an input."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

import qengine
from qengine.errors import InputError
from qengine.loader.sources.open import reopen
from qengine.loader.sources.query import spool
from tests.loader.stores import Site, sky

STATEMENT = "SELECT id, ra, dec, mag * 2 AS twice FROM demo.obj WHERE mag < 20"


def test_an_answer_becomes_a_source_that_reads_the_same_each_time(site: Site, tmp_path: Path) -> None:
    rows = pa.table(sky(300))
    rows = rows.cast(rows.schema.set(1, pa.field("ra", pa.float64(), metadata={"unit": "deg", "ucd": "pos.eq.ra;meta.main"})))
    site.load(site.write("a.parquet", rows), key="id")
    site.registry.close()
    with qengine.connect(site.store.root) as client:
        source = spool(client.query(STATEMENT), tmp_path / "spool")
        again = spool(client.query(f"{STATEMENT} "), tmp_path / "spool")
        other = spool(client.query(STATEMENT.replace("20", "19")), tmp_path / "spool", label="mine")
        with pytest.raises(InputError, match="cut by a limit"):
            spool(client.query(STATEMENT, maxrec=3), tmp_path / "cut")
    assert list((tmp_path / "cut").iterdir()) == []
    assert (source.identity.kind, source.identity.label) == ("query", f"query {STATEMENT}")
    assert (source.version() == again.version(), source.version() == other.version()) == (True, False)
    assert other.identity.label == "mine"
    assert source.schema.field("ra").metadata[b"ucd"] == b"pos.eq.ra;meta.main"
    expected = {key: 2.0 * mag for key, mag in zip(rows["id"].to_pylist(), rows["mag"].to_pylist(), strict=True) if mag < 20}
    for one in (source, source, reopen(source.recipe)):
        read = pa.Table.from_batches(list(one.batches(["id", "twice"])))
        assert dict(zip(read["id"].to_pylist(), read["twice"].to_pylist(), strict=True)) == expected
