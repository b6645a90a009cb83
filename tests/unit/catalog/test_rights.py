"""Who may read what: grants in SQLite and PostgreSQL, and what is left of a catalogue for whom."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qengine.catalog.model import NO_PARTS, Catalog, ForeignKey, Match, Table, TableKind, TableSnapshot
from qengine.catalog.registry import Registry
from qengine.catalog.releases import CatalogState, ReleaseState
from qengine.catalog.rights import PUBLIC, Grant, Rights, grantee_of, user_catalog, visible
from qengine.catalog.system_tables import Facts, described
from qengine.catalog.tap_schema import tap_schema
from qengine.catalog.who import ANONYMOUS, LOCAL, Identity
from qengine.errors import ConfigError, ConflictError, RegistryError
from tests.support.postgres import ON_BOTH, NewDatabase
from tests.unit.catalog.snapshots import snapshot, table

ANN = Identity("ann", frozenset({"dp1"}))
BOB = Identity("bob")


def publish(registry: Registry, catalog: str, *names: str) -> None:
    load = registry.begin_load({})
    registry.publish(load, catalog, [snapshot(name, schema=catalog) for name in names])
    registry.finish_load(load)


@pytest.fixture
def registry(database: NewDatabase, tmp_path: Path) -> Iterator[Registry]:
    with Registry.open(tmp_path, url=database()) as found:
        publish(found, "dp1", "Object", "Source")
        publish(found, "open", "Object")
        yield found


@ON_BOTH
def test_grants_come_and_go(registry: Registry) -> None:
    rights = registry.rights
    assert rights.listed() == ()
    assert rights.grant("DP1", "", "group:dp1") == Grant("dp1", "", "group:dp1")
    rights.grant("dp1", "", "group:dp1")
    rights.grant("dp1", "object", PUBLIC)
    assert rights.listed() == (Grant("dp1", "", "group:dp1"), Grant("dp1", "Object", PUBLIC))
    now = rights.current()
    assert rights.current() is now
    assert now.may_read(ANN, "dp1", "Source")
    assert not now.may_read(BOB, "DP1", "source")
    assert now.may_read(BOB, "DP1", "OBJECT")
    assert now.may_read(BOB, "open", "Object")
    for catalog, name in (("dp9", ""), ("dp1", "nothing")):
        with pytest.raises(RegistryError, match=r"there is no|has no"):
            rights.grant(catalog, name, PUBLIC)
    with pytest.raises(RegistryError, match="not granted"):
        rights.revoke("dp1", "Source", PUBLIC)
    rights.revoke("dp1", "OBJECT", PUBLIC)
    assert not rights.current().may_read(BOB, "dp1", "Object")


@ON_BOTH
def test_the_last_grant_does_not_open_by_accident(registry: Registry) -> None:
    rights = registry.rights
    rights.grant("dp1", "", "group:dp1")
    with pytest.raises(ConflictError, match="everybody reads dp1"):
        rights.revoke("dp1", "", "group:dp1")
    registry.releases.promote("dp1", ReleaseState.STAGED)
    rights.revoke("dp1", "", "group:dp1")
    assert not rights.current().may_read(ANN, "dp1", "Object")
    registry.releases.promote("dp1", ReleaseState.RELEASED)
    assert rights.current().may_read(ANN, "dp1", "Object")
    rights.grant("dp1", "", "group:dp1")
    rights.revoke("dp1", "", "group:dp1", is_opening=True)
    assert rights.current().may_read(BOB, "dp1", "Object")


@ON_BOTH
def test_states_count_at_once(registry: Registry) -> None:
    rights = registry.rights
    registry.releases.promote("dp1", ReleaseState.INTERNAL, ["DP1"])
    now = rights.current()
    assert now.may_read(ANN, "dp1", "Object")
    assert not now.may_read(BOB, "dp1", "Object")
    assert now.may_read(LOCAL, "dp1", "Object")
    rights.grant("dp1", "", PUBLIC)
    assert not rights.current().may_read(BOB, "dp1", "Object")  # not before it is released
    rights.grant("dp1", "", "user:bob")
    assert rights.current().may_read(BOB, "dp1", "Object")
    registry.releases.promote("dp1", ReleaseState.RELEASED)
    assert rights.current().may_read(ANONYMOUS, "dp1", "Object")


@ON_BOTH
def test_a_rebuilt_registry_opens_nothing(registry: Registry, tmp_path: Path) -> None:
    registry.rights.grant("dp1", "", "group:dp1")
    registry.rights.grant("dp1", "Object", "user:bob")
    before = registry.rights.listed()
    registry.rebuild()
    assert registry.rights.listed() == before
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("dp1", "open"):
        shutil.copytree(tmp_path / name, copy / name)
    with Registry.open(copy) as other:
        other.rebuild()
        assert other.rights.listed() == before


def test_a_user_who_is_removed_leaves_no_grants(tmp_path: Path) -> None:
    with Registry.open(tmp_path) as registry:
        publish(registry, "dp1", "Object")
        registry.users.add("bob")
        registry.rights.grant("dp1", "", "user:bob")
        registry.rights.grant("dp1", "", "group:x")
        registry.users.remove("bob")
        assert registry.rights.listed() == (Grant("dp1", "", "group:x"),)


def test_grantees() -> None:
    assert grantee_of(user="Ann") == "user:ann"
    assert grantee_of(group="/Rubin/DP1") == "group:/rubin/dp1"
    assert grantee_of(is_public=True) == PUBLIC
    for words in ({}, {"user": "a", "group": "b"}, {"user": "a", "is_public": True}, {"user": "a b"}, {"group": "a,b"}):
        with pytest.raises(ConfigError):
            grantee_of(**words)


def test_own_catalogues_are_private_and_different() -> None:
    assert user_catalog("ann_1") == "user_ann_1"
    names = ["ann", "a.b", "a_b", "a-b", "a@b", "a_2eb", "x_a_2eb", "a._b", "a_.b"]
    assert len({user_catalog(name) for name in names}) == len(names)
    rights = Rights((Grant("user_bob", "shared", "user:ann"),))
    assert rights.may_read(Identity("bob"), "USER_BOB", "t")
    assert not rights.may_read(ANN, "user_bob", "t")
    assert rights.may_read(ANN, "user_bob", "shared")
    assert not rights.may_read(ANONYMOUS, "user_", "t")
    assert not rights.may_read(Identity("bob"), "tap_upload_1", "t")


@given(st.text("ab2_.@+-e", min_size=1, max_size=6), st.text("ab2_.@+-e", min_size=1, max_size=6))
def test_two_users_never_share_a_catalogue(one: str, other: str) -> None:
    assert (user_catalog(one) == user_catalog(other)) == (one == other)


# -- what is left ---------------------------------------------------------------------------------------------------------------

READ = Facts(loads=(), inputs=(), snapshots=(), tags=(), quality=lambda _: pytest.fail("not asked"), queries=lambda _: ())


def needs(view: Table) -> Iterable[tuple[str, str]] | None:
    """What a view names, here simply written with spaces."""
    return None if view.view == "?" else [(word.rpartition(".")[0], word.rpartition(".")[2]) for word in view.view.split()]


def made(definition: Table) -> TableSnapshot:
    return TableSnapshot(table=definition, number=1, home=NO_PARTS, orphan=NO_PARTS, margin=NO_PARTS)


def child(name: str, director: str, schema: str) -> Table:
    return replace(
        table(name, schema=schema), kind=TableKind.CHILD, director=director, director_key="id", family=f"{schema}.{director}", key="",
        foreign_keys=(ForeignKey(columns=("id",), target=director, target_columns=("id",)),),
    )  # fmt: skip


def view(name: str, text: str, schema: str) -> Table:
    return replace(table(name, schema=schema), kind=TableKind.REPLICATED, family="", view=text, foreign_keys=())


def world() -> Catalog:
    match = replace(child("Pairs", "Object", "a"), kind=TableKind.MATCH, match=Match(family="b.Object", key="id"))
    tables = tuple(
        made(one)
        for one in (
            table("Object", schema="a"), child("Source", "Object", "a"), match, table("Object", schema="b"),
            view("V", "Object b.Object", "a"), view("W", "V Nothing qengine_meta.loads TAP_SCHEMA.tables", "a"),
            view("U", "Single", "b"), table("Single", schema="c"), view("Broken", "?", "c"),
        )
    )  # fmt: skip
    meta = described(lambda _: READ)
    return Catalog((*tables, *meta, *tap_schema((*tables, *meta))))


def names(catalog: Catalog) -> set[str]:
    return {one.table.full_name for one in catalog if one.facts is None and one.table.schema != "TAP_SCHEMA"}


def only(*grants: tuple[str, str]) -> Rights:
    """Rights that hide everything but these (catalogue, table) from the public."""
    closed = tuple(Grant(name, "", "group:nobody") for name in "abc")
    return Rights((*closed, *(Grant(catalog, name, PUBLIC) for catalog, name in grants)))


def test_what_stands_on_hidden_tables_is_hidden() -> None:
    everything = names(world())
    assert names(visible(world(), LOCAL, only(), needs)) == everything
    assert names(visible(world(), ANONYMOUS, Rights(), needs)) == everything - {"c.Broken"}
    assert names(visible(world(), ANONYMOUS, only(), needs)) == set()
    assert names(visible(world(), ANONYMOUS, only(("a", "")), needs)) == {"a.Object", "a.Source"}
    assert names(visible(world(), ANONYMOUS, only(("a", ""), ("b", "")), needs)) == everything - {"b.U", "c.Single", "c.Broken"}
    assert names(visible(world(), ANONYMOUS, only(("a", "V"), ("a", "W")), needs)) == set()
    assert names(visible(world(), ANONYMOUS, only(("b", "U"), ("c", "Single")), needs)) == {"b.U", "c.Single"}


def test_a_child_does_not_tell_of_a_hidden_director() -> None:
    [alone] = [one for one in visible(world(), ANONYMOUS, only(("a", "Source")), needs) if one.table.full_name == "a.Source"]
    assert (alone.table.director, alone.table.foreign_keys) == ("", ())
    [both] = [one for one in visible(world(), ANONYMOUS, only(("a", "")), needs) if one.table.full_name == "a.Source"]
    assert both.table.director == "Object"
    assert len(both.table.foreign_keys) == 1


def test_what_was_never_promoted() -> None:
    closed = Rights((Grant("b", "", "user:ann"),), {"c": CatalogState(state=ReleaseState.RELEASED)}, ReleaseState.STAGED)
    assert names(visible(world(), ANONYMOUS, closed, needs)) == {"c.Single"}
    assert names(visible(world(), ANN, closed, needs)) == {"b.Object", "b.U", "c.Single"}


def test_who_sees_the_same_is_the_same() -> None:
    rights = Rights(
        (Grant("a", "", "group:x"), Grant("b", "", "user:ann")),
        {"c": CatalogState(state=ReleaseState.INTERNAL, groups=frozenset({"Y"}))},
    )
    assert rights.subjects(BOB) == rights.subjects(ANONYMOUS) == frozenset()
    assert rights.subjects(Identity("ann", frozenset({"x", "y", "z"}))) == {"user:ann", "group:x", "group:y"}


TABLES = st.sampled_from(
    [("a", ""), ("a", "Object"), ("a", "V"), ("a", "Pairs"), ("b", ""), ("b", "Object"), ("c", "Single"), ("c", "")]
)
GRANTEES = st.sampled_from([PUBLIC, "group:g", "user:ann", "group:h"])
STATES = st.dictionaries(
    st.sampled_from(["a", "b", "c"]),
    st.builds(CatalogState, state=st.sampled_from(ReleaseState), groups=st.sets(st.sampled_from("gh")).map(frozenset)),
)
PEOPLE = st.builds(Identity, st.sampled_from(["", "ann", "bob"]), st.sets(st.sampled_from("gh")).map(frozenset))


@given(st.lists(st.tuples(TABLES, GRANTEES), max_size=8), STATES, PEOPLE)
def test_nothing_visible_tells_of_what_is_hidden(
    grants: list[tuple[tuple[str, str], str]], states: dict[str, CatalogState], who: Identity
) -> None:
    rights = Rights(tuple(Grant(catalog, name, grantee) for (catalog, name), grantee in grants), states)
    whole, left = world(), visible(world(), who, rights, needs)
    shown = names(left)
    assert shown == {name for name in shown if rights.may_read(who, *name.split("."))}
    hidden = names(whole) - shown
    for one in left:
        told = {one.table.director, *(key.target for key in one.table.foreign_keys)} - {""}
        assert not {f"{one.table.schema}.{name}" for name in told if f"{one.table.schema}.{name}" in hidden}
        if one.table.match is not None:
            assert {one.table.family, one.table.match.family} <= shown
    listed = {
        name
        for one in left
        if one.table.schema == "TAP_SCHEMA" and one.inline
        for row in one.inline.to_pylist()
        for name in row.values()
    }
    assert not listed & hidden
    # nothing that may be read is lost but what stands on something hidden
    plain = {"a.Object", "a.Source", "b.Object", "c.Single"}
    assert shown & plain == {name for name in plain if rights.may_read(who, *name.split("."))}
