"""What may not be read does not exist: no statement, plan, error, list or system table tells of it, whatever was granted to whom.

Everything of a table has names and values that nothing else has (its canaries). What somebody gets who may not read the table must
not have one, unless they wrote it themselves; and what they write about it must be answered as if it had another name that never was.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qengine.app import cluster
from qengine.catalog.model import TableKind
from qengine.catalog.registry import Registry
from qengine.catalog.releases import ReleaseState
from qengine.catalog.rights import PUBLIC
from qengine.catalog.summary import summarise
from qengine.catalog.who import ANONYMOUS, LOCAL, Identity
from qengine.client.local import LocalClient
from qengine.coordinator.service import QueryService
from qengine.errors import QEngineError, UnknownNameError
from qengine.tap.metadata import tableset
from tests.loader.stores import Site

SCHEMA = """
name: pux
tables:
- name: puxglim
  primaryKey: '#puxglim.id'
  description: open puxword
  columns:
  - {name: id, datatype: long, nullable: false, description: d}
  - {name: ra, datatype: double, description: d}
  - {name: dec, datatype: double, description: d}
  - {name: word, datatype: string, length: 20, description: d}
"""
SIDECAR = """
[tables.puxglim]
kind = "director"
ra = "ra"
dec = "dec"
margin_arcsec = 5
[views.own]
sql = "SELECT id, word FROM puxglim WHERE id < 5"
[views.mixed]
sql = "SELECT s.id, o.kwaobjcol FROM puxglim s JOIN kwa.kwaobj o ON o.id = s.id"
[views.nested]
sql = "SELECT m.id FROM mixed m"
"""

TABLES = ("kwa.kwaobj", "kwa.kwasrc", "stg.stgobj", "pux.puxglim")
CANARIES = {
    "kwa.kwaobj": ("kwaobj", "puxpair", "mixed", "nested"),
    "kwa.kwasrc": ("kwasrc",),
    "stg.stgobj": ("stgobj", "stg"),
    "pux.puxglim": (),
}
"""What nobody is told who may not read the table: a part of every name and value in it, and what stands on it."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("rights")
    made = Site(folder)
    count = 12
    place = {"id": pa.array(range(count), pa.int64()), "ra": [10.0 + i for i in range(count)], "dec": [5.0] * count}
    for catalog, table in (("kwa", "kwaobj"), ("stg", "stgobj")):
        columns = {**place, f"{table}col": [f"{table} value {i}" for i in range(count)]}
        made.load(made.write(f"{table}.parquet", columns), catalog=catalog, table=table, key="id", rows_per_tile=4)
    child = {
        "sid": pa.array(range(count), pa.int64()),
        "oid": place["id"],
        "kwasrccol": [f"kwasrc value {i}" for i in range(count)],
    }
    made.load(
        made.write("kwasrc.parquet", child), catalog="kwa", table="kwasrc", key="sid", kind=TableKind.CHILD, director="kwaobj",
        director_key="oid",
    )  # fmt: skip
    schema = folder / "schema"
    schema.mkdir()
    (schema / "schema.yaml").write_text(SCHEMA)
    (schema / "sharding.toml").write_text(SIDECAR)
    stars = {**place, "word": [f"pux value {i}" for i in range(count)]}
    made.load(made.write("puxglim.parquet", stars), catalog="pux", table="puxglim", schema=schema, rows_per_tile=4)
    pairs = {"a": place["id"], "b": place["id"], "puxpaircol": [f"puxpair value {i}" for i in range(count)]}
    made.load(
        made.write("puxpair.parquet", pairs), catalog="pux", table="puxpair", kind=TableKind.MATCH, left="puxglim.a",
        right="kwa.kwaobj.b",
    )  # fmt: skip
    made.registry.releases.tag("kwa", 1, "kwatag")
    made.registry.releases.tag("stg", 1, "stgtag")
    return made


class Asker:
    """Asks the service of one store as somebody, and returns all that they get to see."""

    def __init__(self, service: QueryService, run: Callable[[Coroutine[Any, Any, Any]], Any], registry: Registry) -> None:
        self._service = service
        self._run = run
        self.registry = registry

    def __call__(self, who: Identity, text: str, **words: Any) -> str:
        async def ask() -> str:
            shown = []
            for act in (self._rows, self._plan):
                try:
                    shown.append(await act(who, text, words))
                except QEngineError as error:
                    shown.append(f"{type(error).__name__} {error.code} {error} {json.dumps(error.details, default=str)}")
            return "\n".join(shown)

        return str(self._run(ask()))

    async def _rows(self, who: Identity, text: str, words: dict[str, Any]) -> str:
        answer = await self._service.query(text, identity=who, **words)
        rows = (await answer.to_table()).to_pylist()
        return f"{answer.columns} {answer.warnings} {answer.snapshots} {rows}"

    async def _plan(self, who: Identity, text: str, words: dict[str, Any]) -> str:
        plan = await self._service.explain(text, identity=who, **words)
        return f"{plan.to_text()} {plan.to_json()}"

    def tables(self, who: Identity) -> str:
        catalog = self._service.catalog(identity=who)
        return tableset(catalog, with_columns=True) + repr([table.to_json() for table in summarise(catalog)])


@pytest.fixture(scope="module")
def ask(site: Site) -> Iterator[Asker]:
    services: list[QueryService] = []

    class Keeping(LocalClient):
        async def _enter(self, context: Any) -> Any:
            services.append(await super()._enter(context))
            return services[0]

    with Keeping(cluster(site.store.root)) as client:
        yield Asker(services[0], client._loop.run, site.registry)


UNSAID = (
    "SELECT * FROM TAP_SCHEMA.schemas", "SELECT * FROM TAP_SCHEMA.tables", "SELECT * FROM TAP_SCHEMA.columns",
    "SELECT * FROM TAP_SCHEMA.keys", "SELECT * FROM TAP_SCHEMA.key_columns", "SELECT * FROM qengine_meta.loads",
    "SELECT * FROM qengine_meta.inputs", "SELECT * FROM qengine_meta.parts", "SELECT * FROM qengine_meta.quality",
    "SELECT * FROM qengine_meta.snapshots", "SELECT * FROM qengine_meta.tags", "SELECT * FROM puxglim", "SELECT * FROM pux.puxglim",
    "SELECT * FROM pux.own", "SELECT COUNT(*) AS n FROM TAP_SCHEMA.columns c JOIN TAP_SCHEMA.tables t ON t.table_name = c.table_name",
    "SELECT * FROM kw.obj", "SELECT * FROM kwa.obj", "SELECT * FROM nothing", "SELECT objcol FROM pux.puxglim", "SELECT st FROM pux.puxglim",
    "SELECT * FROM pux.puxglim AT (VERSION => 'tag')", "SELECT * FROM pux.mixe", "SELECT * FROM pux.puxpai", "SELECT * FROM pux.neste",
    "SELECT s.id FROM pux.puxglim s, pux.puxglim t WHERE DISTANCE(s.ra, s.dec, t.ra, t.dec) < 0.1",
)  # fmt: skip
"""Statements that name nothing that may be hidden."""

SAID = (
    "SELECT * FROM {0}", "SELECT id FROM {0} WHERE id = 3", "SELECT * FROM {1}", "SELECT nothing FROM {0}", "SELECT * FROM {0} AT (VERSION => 1)",
    "SELECT * FROM {0} AT (VERSION => 99)", "SELECT * FROM {0} AT (VERSION => 'x')", "SELECT * FROM {0} AT (TIMESTAMP => '2001-01-01')",
    "SELECT s.id FROM pux.puxglim s WHERE EXISTS (SELECT 1 FROM {0} o)", "WITH c AS (SELECT * FROM {0}) SELECT * FROM c",
    "SELECT s.id FROM pux.puxglim s JOIN {0} o ON o.id = s.id", "SELECT m.separation_arcsec FROM CROSSMATCH(pux.puxglim, {0}, 1, 'all') AS m",
    "SELECT id FROM pux.puxglim UNION SELECT id FROM {0}", "SELECT * FROM qengine_meta.parts WHERE table_name = '{1}'",
    "SELECT * FROM TAP_SCHEMA.tables WHERE table_name = '{0}'", "SELECT (SELECT COUNT(*) FROM {0}) AS n FROM pux.puxglim",
)  # fmt: skip
"""Statements that name a table, which may be hidden."""

GRANT = st.tuples(st.sampled_from([*TABLES, "kwa", "stg", "pux"]), st.sampled_from([PUBLIC, "group:g", "group:h", "user:ann"]))
STATE = st.sampled_from([ReleaseState.RELEASED, ReleaseState.STAGED, ReleaseState.INTERNAL])
WHO = st.sampled_from([ANONYMOUS, Identity("ann"), Identity("ann", frozenset({"g"})), Identity("bob", frozenset({"h"}))])


def set_rights(registry: Registry, grants: set[tuple[str, str]], states: dict[str, ReleaseState]) -> None:
    for old in registry.rights.listed():
        registry.rights.revoke(old.catalog, old.table, old.grantee, is_opening=True)
    for name, grantee in grants:
        catalog, _, table = name.partition(".")
        registry.rights.grant(catalog, table, grantee)
    for catalog in ("kwa", "stg", "pux"):
        state = states.get(catalog, ReleaseState.RELEASED)
        registry.releases.promote(catalog, state, ("g",) if state is ReleaseState.INTERNAL else ())


def check(ask: Asker, who: Identity) -> int:
    """Check all statements as `who`, and return how many tables they may not read."""
    rights = ask.registry.rights.current()
    hidden = [name for name in TABLES if not rights.may_read(who, *name.split("."))]
    for text in UNSAID:
        shown = ask(who, text)
        for name in hidden:
            for word in CANARIES[name]:
                assert word not in shown.replace(text, ""), (text, name, shown)
    for name in hidden:
        listed = ask.tables(who)
        assert not [word for word in CANARIES[name] if word in listed]
        # as if it were a table that never was
        schema, table = name.split(".")
        known = any(rights.may_read(who, *other.split(".")) for other in TABLES if other.startswith(f"{schema}."))
        other = (schema if known else "zz" + schema[2:], "zz" + table[2:])
        for text in SAID:
            if "pux.puxglim" in text and "pux.puxglim" in hidden:
                continue
            mine = ask(who, text.format(name, table))
            never = ask(who, text.format(".".join(other), other[1]))
            assert same(mine, name) == same(never, ".".join(other)), text
            assert not [word for far in hidden if far != name for word in CANARIES[far] if word in mine], (text, mine)
    return len(hidden)


def same(shown: str, name: str) -> str:
    """Return what was shown without a table's name, without hints of names that are there, and without times and digests."""
    shown = re.sub(r" \((did you mean [^)]*|TAP_SCHEMA.tables lists the tables)\)", "", shown)
    schema, table = name.split(".")
    for word in (table, schema):
        shown = shown.replace(word, "*")
    return re.sub(r"\d+\.\d+|[0-9a-f]{16,}", "#", shown)


@settings(max_examples=12)
@given(st.sets(GRANT, max_size=4), st.dictionaries(st.sampled_from(["kwa", "stg", "pux"]), STATE), WHO)
def test_nothing_tells_of_what_may_not_be_read(
    ask: Asker, grants: set[tuple[str, str]], states: dict[str, ReleaseState], who: Identity
) -> None:
    set_rights(ask.registry, grants, states)
    check(ask, who)


@pytest.mark.slow
@settings(max_examples=250)
@given(st.sets(GRANT, max_size=5), st.dictionaries(st.sampled_from(["kwa", "stg", "pux"]), STATE), WHO)
def test_nothing_tells_of_what_may_not_be_read_at_length(
    ask: Asker, grants: set[tuple[str, str]], states: dict[str, ReleaseState], who: Identity
) -> None:
    set_rights(ask.registry, grants, states)
    check(ask, who)


def test_the_cases_that_matter_most(ask: Asker) -> None:
    set_rights(ask.registry, {("kwa", "group:g")}, {"stg": ReleaseState.STAGED})
    assert check(ask, ANONYMOUS) == 3
    assert check(ask, Identity("bob", frozenset({"g"}))) == 1
    assert "puxpair value 3" in ask(Identity("bob", frozenset({"g"})), "SELECT * FROM pux.puxpair")
    assert "kwaobj value 3" in ask(LOCAL, "SELECT * FROM pux.mixed")
    set_rights(ask.registry, {("kwa.kwasrc", PUBLIC)}, {})
    assert check(ask, ANONYMOUS) == 1  # a child whose director is hidden
    assert "kwasrc value 7" in ask(ANONYMOUS, "SELECT * FROM kwa.kwasrc WHERE oid = 7")
    refused = ask(ANONYMOUS, "SELECT * FROM kwa.kwasrc", max_cost="1B")
    assert "QueryTooExpensiveError" in refused
    assert "kwaobj" not in refused


def test_a_snapshot_of_what_is_hidden_is_a_catalogue_that_never_was(ask: Asker) -> None:
    set_rights(ask.registry, {("kwa", "group:g")}, {})
    for number in (1, 99, "kwatag", "x", "2001-01-01"):
        hidden = ask(ANONYMOUS, "SELECT * FROM pux.puxglim", snapshots={"kwa": number})
        assert hidden == ask(ANONYMOUS, "SELECT * FROM pux.puxglim", snapshots={"zzz": number}).replace("zzz", "kwa")
        assert "there is no catalogue kwa" in hidden
    member = Identity("bob", frozenset({"g"}))
    assert "kwaobj value 3" in ask(member, "SELECT * FROM kwa.kwaobj", snapshots={"kwa": 1})


def test_rights_count_at_once(ask: Asker) -> None:
    set_rights(ask.registry, set(), {})
    assert "kwaobj value 3" in ask(ANONYMOUS, "SELECT * FROM kwa.kwaobj")
    ask.registry.rights.grant("kwa", "", "group:g")
    assert "kwaobj value 3" not in ask(ANONYMOUS, "SELECT * FROM kwa.kwaobj")
    ask.registry.rights.grant("kwa", "", PUBLIC)
    assert "kwaobj value 3" in ask(ANONYMOUS, "SELECT * FROM kwa.kwaobj")


def test_queries_are_seen_by_who_asked(ask: Asker) -> None:
    service, ann, bob = ask._service, Identity("ann"), Identity("bob")
    set_rights(ask.registry, set(), {})

    async def scenario() -> None:
        answer = await service.query("SELECT * FROM pux.puxglim", identity=ann, query_id="query-of-ann")
        try:
            for who in (ann, LOCAL, Identity("root", is_admin=True)):
                assert service.progress("query-of-ann", identity=who).query == "query-of-ann"
                assert [one.query for one in service.running(identity=who)] == ["query-of-ann"]
            for who in (bob, ANONYMOUS):
                assert service.running(identity=who) == ()
                with pytest.raises(UnknownNameError, match="no query query-of-ann"):
                    service.progress("query-of-ann", identity=who)
                with pytest.raises(UnknownNameError):
                    await service.cancel("query-of-ann", identity=who)
        finally:
            await answer.close()

    ask._run(scenario())
