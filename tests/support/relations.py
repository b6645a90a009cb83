"""Random FROM clauses: tables, derived tables, CTEs, and joins by key, by value and by distance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from tests.support import query_ast as q
from tests.support.predicates import PredicateMixin
from tests.support.scope import Field, Kind, Relation
from tests.support.sky_builder import ARCSEC, Role
from tests.support.values import ValueMixin

SOURCES: Mapping[str, float] = {
    "single": 38, "family": 18, "siblings": 4, "chain": 6, "replicated": 6, "product": 2,
    "self_near": 6, "two_near": 8, "child_near": 3, "near_chain": 3, "three_near": 1, "value": 4,
}  # fmt: skip

SIMPLE: Mapping[str, float] = {"single": 8, "family": 2, "two_near": 1}

KINDS: Mapping[str, float] = {"INNER": 50, ",": 12, "LEFT": 20, "RIGHT": 8, "FULL": 4}

RADII: Mapping[float, float] = {
    0.5003 * ARCSEC: 2, 4.7 * ARCSEC: 4, 12.9 * ARCSEC: 4, 29.99 * ARCSEC: 3, 30 * ARCSEC: 2, 61.3 * ARCSEC: 3, 0.151: 2, 5.03: 1, 0.0: 0.3,
}  # fmt: skip
"""Radii of distance joins in degrees, within and beyond the margin of 30 arcsec."""

FAMILIES = (("Object", "Source"), ("Object", "Forced"), ("Star", "Spectrum"))


def value_samples(kind: Kind) -> tuple[object, ...]:
    """Values to compare a computed column with."""
    return {Kind.TEXT: ("r", "R"), Kind.TIME: (datetime(2020, 1, 2),)}.get(kind, (0, 1))


class RelationMixin(PredicateMixin, ValueMixin):
    """FROM clauses over the tables of the sky."""

    def setup_relations(self, sources: Mapping[str, float] | None) -> None:
        self.sources = sources or SOURCES
        self.ctes: list[tuple[str, q.Node]] = []
        self._cte_fields: dict[str, tuple[Field, ...]] = {}
        self._aliases = 0

    def new_alias(self) -> str:
        self._aliases += 1
        return f"{self.rng.choice('abopstx')}{self._aliases}"

    def any_table(self) -> str:
        return self.choose({"Object": 5, "Source": 4, "Forced": 3, "Star": 2, "Spectrum": 1, "Filter": 1})

    def relation_tree(self, *, simple: bool = False) -> Relation:
        """A FROM clause of one of the shapes in `SOURCES`."""
        match self.choose(SIMPLE if simple else self.sources):
            case "family":
                return self.family()
            case "siblings":
                return self.key_join(self.table("Source"), self.table("Forced"))
            case "chain":
                return self.chain()
            case "replicated":
                return self.replicated()
            case "product":
                return self.join(self.table(self.rng.choice(("Object", "Spectrum"))), self.table("Filter"), None, ",")
            case "self_near":
                return self.self_near()
            case "two_near":
                return self.near(self.table("Object"), self.table("Star"))
            case "child_near":
                return self.near(self.table("Source"), self.table(self.rng.choice(("Star", "Object"))))
            case "near_chain":
                pair = self.near(self.table("Object"), self.table("Star"), inner=True)
                return self.key_join(pair, self.table(self.rng.choice(("Source", "Forced"))))
            case "three_near":
                pair = self.near(self.table("Object"), self.table("Star"), inner=True)
                return self.near(pair, self.table("Object"), inner=True, radius=self.rng.choice((4.7, 12.9, 61.3)) * ARCSEC)
            case "value":
                return self.value_join()
        return self.table(self.any_table())

    # -- one relation ------------------------------------------------------------------------------------------------------

    def table(self, name: str) -> Relation:
        """A base table, or the same behind a derived table or a CTE, where its keys and positions keep their names."""
        match self.choose({"base": 80, "derived": 10, "cte": 6, "grouped": 3, "cut": 3, "union": 2}):
            case "derived":
                return self.derive(self.narrowed(self.base(name)))
            case "cte":
                return self.common(name)
            case "grouped" if name in ("Source", "Forced", "Spectrum"):
                return self.derive(self.grouped(self.base(name)))
            case "cut" if name in ("Object", "Source", "Star"):
                return self.derive(self.cut(self.base(name)))
            case "union":
                return self.derive(self.union(name))
        return self.base(name)

    def derive(self, inner: tuple[q.Node, tuple[Field, ...]]) -> Relation:
        query, fields = inner
        alias = self.new_alias()
        return Relation(q.Derived(query, alias), tuple(f.at(alias) for f in fields))

    def common(self, name: str) -> Relation:
        """A CTE; the same one again when there is one of this table."""
        known = [cte for cte in self._cte_fields if cte.startswith(f"w{name.lower()}")]
        if not known or self.luck(0.3):
            cte = f"w{name.lower()}{len(self.ctes)}"
            query, fields = self.narrowed(self.base(name)) if self.luck(0.8) else self.union(name)
            self.ctes.append((cte, query))
            self._cte_fields[cte] = fields
            known = [cte]
        cte = self.rng.choice(known)
        alias = self.new_alias()
        return Relation(q.TableRef("", cte, alias), tuple(f.at(alias) for f in self._cte_fields[cte]))

    def kept(self, relation: Relation) -> list[Field]:
        """Keys and positions, and some values."""
        values = [field for field in relation.fields if field.role is Role.VALUE]
        some = set(self.rng.sample(range(len(values)), self.rng.randint(min(2, len(values)), len(values))))
        named = ("band", "flags")
        return [f for f in relation.fields if f.role is not Role.VALUE or f.name in named or values.index(f) in some]

    def narrowed(self, relation: Relation) -> tuple[q.Node, tuple[Field, ...]]:
        """SELECT keys, positions, some values and a computed one; perhaps DISTINCT."""
        fields = self.kept(relation)
        items = [q.Item(field.node, "", field.name) for field in fields]
        if self.luck(0.4):
            kind = self.choose({Kind.INT: 2, Kind.EXACT: 2, Kind.TEXT: 1})
            value, kind = self.value_of(relation, kind, 1)
            items.append(q.Item(value, "calc", "calc"))
            fields.append(Field(value, "calc", kind, Role.VALUE, value_samples(kind)))
        where = self.where_of_derived(relation)
        return q.Select(items=tuple(items), source=relation.source, where=where, distinct=self.luck(0.1)), tuple(fields)

    def where_of_derived(self, relation: Relation) -> q.Node | None:
        return self.inner_where(relation) if self.luck(0.7) else None

    def grouped(self, relation: Relation) -> tuple[q.Node, tuple[Field, ...]]:
        """One row per director: GROUP BY the director key (NULL included)."""
        key = relation.role(Role.DIRECTOR_KEY)
        value, kind = self.exact_aggregate(relation)
        items = (q.Item(key.node, "", key.name), q.Item(q.Aggregate("COUNT", None), "n", "n"), q.Item(value, "agg", "agg"))
        query = q.Select(items=items, source=relation.source, where=self.where_of_derived(relation), group=(key.node,))
        fields = (
            key,
            Field(key.node, "n", Kind.INT, Role.VALUE, (1, 2, 3)),
            Field(key.node, "agg", kind, Role.VALUE, value_samples(kind)),
            Field(key.node, "band", Kind.TEXT, Role.VALUE, ("r",)),
        )
        band = next((f for f in relation.fields if f.name == "band"), None)
        if band is None:
            return query, fields[:3]
        items = (*items, q.Item(q.Aggregate("MAX", band.node), "band", "band"))
        return replace(query, items=items), fields

    def cut(self, relation: Relation) -> tuple[q.Node, tuple[Field, ...]]:
        """TOP n in a total order, so that it is one set of rows."""
        fields = self.kept(relation)
        key = relation.keys()[0]
        items = tuple(q.Item(field.node, "", field.name) for field in fields)
        value = self.rng.choice([f for f in fields if f.kind is not Kind.APPROX])
        order = (q.Order(-1, value.node, self.luck(0.5)), q.Order(-1, key.node, self.luck(0.5)))
        query = q.Select(
            items=items, source=relation.source, where=self.where_of_derived(relation), order=order,
            top=self.rng.choice((1, 5, 20)), offset=self.rng.choice((None, None, 3)),
        )  # fmt: skip
        return query, tuple(fields)

    def union(self, name: str) -> tuple[q.Node, tuple[Field, ...]]:
        """Two overlapping parts of one table."""
        one, two = self.base(name), self.base(name)
        fields = self.kept(one)
        names = [field.name for field in fields]
        operands = []
        for side in (one, two):
            by_name = {field.name: field for field in side.fields}
            items = tuple(q.Item(by_name[n].node, "", n) for n in names)
            operands.append(q.Select(items=items, source=side.source, where=self.where_of_derived(side)))
        op = self.choose({"UNION": 6, "EXCEPT": 2, "INTERSECT": 2})
        return q.SetOp(op=op, all=op == "UNION" and self.luck(0.6), left=operands[0], right=operands[1]), tuple(fields)

    # -- joins -------------------------------------------------------------------------------------------------------------

    def join(self, left: Relation, right: Relation, on: q.Node | None, kind: str) -> Relation:
        """Join; a comma moves its condition to WHERE. A right side that is itself a comma join becomes an inner join's left."""
        fields = (*left.fields, *right.fields)
        where = (*left.where, *right.where)
        if kind == "," or on is None:
            extra = () if on is None else (on,)
            return Relation(q.Join(",", left.source, right.source), fields, (*where, *extra))
        # JOIN binds tighter than a comma: a comma join may only be on the left, where the names of its last item are visible.
        if isinstance(left.source, q.Join) and left.source.kind == ",":
            return Relation(q.Join(",", left.source, right.source), fields, (*where, on))
        return Relation(q.Join(kind, left.source, right.source, on), fields, where)

    def kind(self, *, inner: bool = False) -> str:
        return self.choose({"INNER": 4, ",": 1}) if inner else self.choose(KINDS)

    def with_extra(self, on: q.Node, *sides: Relation) -> q.Node:
        """Sometimes a further condition in ON, on one of the sides."""
        if self.luck(0.2):
            side = self.rng.choice(sides)
            return q.And((on, self.predicate(Relation(side.source, side.fields), 0)))
        return on

    def family_key(self, relation: Relation) -> Field:
        """The director's key as this relation has it."""
        keys = [f for f in relation.fields if f.name in ("objectId", "star", "starId")]
        named = [f for f in keys if f.name == "objectId"]
        return self.rng.choice(named or keys)

    def key_join(self, left: Relation, right: Relation) -> Relation:
        kind = self.kind()
        one, two = self.family_key(left), self.family_key(right)
        on: q.Node = q.Compare("=", *((one.node, two.node) if self.luck(0.5) else (two.node, one.node)))
        if self.luck(0.1) and kind != "," and one.name == two.name and isinstance(left.source, q.TableRef | q.Derived):
            return self.using(left, right, kind, one.name)
        return self.join(left, right, self.with_extra(on, left, right), kind)

    def using(self, left: Relation, right: Relation, kind: str, name: str, *, natural: bool = False) -> Relation:
        """USING or NATURAL: the common column is one, without qualifier."""
        aliases = tuple(side.source.alias for side in (left, right) if isinstance(side.source, q.TableRef | q.Derived))
        source = q.Join(kind, left.source, right.source, None, ((name, aliases[0], aliases[1]),), natural)
        shared = next(f for f in left.fields if f.name == name)
        rest = [f for f in (*left.fields, *right.fields) if f.name != name]
        return Relation(source, (replace(shared, node=q.Shared(name, aliases)), *rest), (*left.where, *right.where))

    def family(self) -> Relation:
        director, child = self.rng.choice(FAMILIES)
        names = (director, child) if self.luck(0.6) else (child, director)
        return self.key_join(*(self.table(name) for name in names))

    def chain(self) -> Relation:
        first = self.family()
        match self.choose({"filter": 3, "sibling": 3, "near": 2}):
            case "sibling" if any(f.name == "objectId" for f in first.fields):
                return self.key_join(first, self.table(self.rng.choice(("Forced", "Source"))))
            case "near" if first.positions():
                return self.near(first, self.table("Star"))
        return self.band_join(first, self.table("Filter"))

    def band_join(self, left: Relation, right: Relation) -> Relation:
        one = next((f for f in left.fields if f.name == "band"), None)
        two = next((f for f in right.fields if f.name == "band"), None)
        if one is None or two is None:
            return self.join(left, right, None, ",")
        return self.join(left, right, self.with_extra(q.Compare("=", one.node, two.node), left, right), self.kind())

    def replicated(self) -> Relation:
        name = self.rng.choice(("Source", "Forced", "Spectrum"))
        if name != "Source" and self.luck(0.2):
            # Only `band` is common to both.
            return self.using(
                self.base(name), self.base("Filter"), self.choose({"INNER": 3, "LEFT": 1, "FULL": 1}), "band", natural=True
            )
        left, right = self.table(name), self.table("Filter")
        return self.band_join(left, right) if self.luck(0.7) else self.band_join(right, left)

    def near(self, left: Relation, right: Relation, *, inner: bool = False, radius: float | None = None) -> Relation:
        """A join on distance between a position of each side; by CONTAINS in CIRCLE of columns now and then."""
        if not left.positions() or not right.positions():
            return self.join(left, right, None, ",")
        one, two = self.rng.choice(left.positions()), self.rng.choice(right.positions())
        reach = self.choose(RADII) if radius is None else radius
        if self.luck(0.25):
            one, two = two, one
        if self.luck(0.2):
            on: q.Node = q.Inside(one, q.Circle(two[0], two[1], reach), self.rng.choice(("contains=1", "1=contains")))
        else:
            form = self.rng.choice(("points", "points", "numbers"))
            limit: float | q.Node = reach
            if self.luck(0.12):
                side = self.rng.choice((left, right))
                sizes = [f for f in side.of(Kind.EXACT) if isinstance(f.node, q.Column)]
                limit = q.Binary("*", self.rng.choice(sizes).node, q.Literal(reach)) if sizes else reach
            on = q.Within(one, two, self.rng.choice(("<", "<", "<=")), limit, form, self.luck(0.15))
        return self.join(left, right, self.with_extra(on, left, right), self.kind(inner=inner))

    def self_near(self) -> Relation:
        name = self.choose({"Object": 6, "Star": 2, "Source": 1})
        left, right = self.table(name), self.table(name)
        pair = self.near(left, right)
        if self.luck(0.25) or not left.keys() or not right.keys():
            return pair
        once = q.Compare(self.rng.choice(("<", "<>")), left.keys()[0].node, right.keys()[0].node)
        source = pair.source
        if isinstance(source, q.Join) and source.on is not None and self.luck(0.6):
            return replace(pair, source=replace(source, on=q.And((source.on, once))))
        return replace(pair, where=(*pair.where, once))

    def value_join(self) -> Relation:
        """An equality that says nothing about places."""
        pairs = (
            ("Object", "flags", "Source", "flags"),
            ("Object", "grade", "Star", "grade"),
            ("Source", "band", "Spectrum", "band"),
        )
        left_name, one, right_name, two = self.rng.choice(pairs)
        left, right = self.base(left_name), self.base(right_name)
        on = q.Compare("=", next(f for f in left.fields if f.name == one).node, next(f for f in right.fields if f.name == two).node)
        return self.join(left, right, on, self.kind())
