"""Errors that come after binding have a place in the text as well: those of the planner, and those of steps while a query runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from qengine.app import ClusterSettings, cluster
from qengine.client.local import LocalClient
from qengine.errors import ExecutionError
from qengine.worker.local import in_process_channel
from tests.support.exchange_store import load_tables, tables

STATEMENT = "SELECT a.id FROM one.stars AS a\nWHERE a.v > (SELECT b.sid FROM two.spots AS b)"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalClient]:
    store = load_tables(tmp_path_factory.mktemp("places"), tables(40), rows_per_tile=30)
    channel = in_process_channel(store, work_dir=tmp_path_factory.mktemp("work"))
    with LocalClient(cluster(store, ClusterSettings(), channels=[channel])) as found:
        yield found


def test_a_step_with_too_many_rows_is_shown_in_the_text(client: LocalClient) -> None:
    with pytest.raises(ExecutionError, match="40 rows") as caught:
        client.query(STATEMENT, lang="adql").to_arrow()
    assert caught.value.span is not None
    line, mark = str(caught.value).splitlines()[-2:]
    assert "WHERE a.v > (SELECT" in line
    assert mark.index("^") > line.index("(")


def test_explain_that_runs_a_statement_shows_it_too(client: LocalClient) -> None:
    with pytest.raises(ExecutionError) as caught:
        client.explain(STATEMENT, lang="adql", analyze=True)
    assert "^" in str(caught.value)
