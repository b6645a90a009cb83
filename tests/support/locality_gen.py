"""Random queries that are mostly blocks inside blocks: what `plan.locality` has to prove or to refuse.

Derived tables of joins, groups by a director's key and by others, common table expressions that are named twice, outer joins of all
sides, and sub-queries of every kind under AND, OR and NOT.
"""

from __future__ import annotations

from dataclasses import replace

from tests.support import query_ast as q
from tests.support.query_gen import QueryGenerator
from tests.support.scope import Field, Kind, Relation
from tests.support.sky_builder import ARCSEC, Role

TABLES = {"base": 45, "derived": 12, "joined": 14, "cte": 12, "grouped": 14, "cut": 2, "union": 2}
KINDS = {"INNER": 36, ",": 8, "LEFT": 28, "RIGHT": 14, "FULL": 14}


class LocalityGenerator(QueryGenerator):
    """The generator with other weights, and a few shapes of its own."""

    def table(self, name: str) -> Relation:
        match self.choose(TABLES):
            case "derived":
                return self.derive(self.narrowed(self.base(name)))
            case "joined" if name != "Filter":
                return self.derive(self.joined(name))
            case "cte":
                return self.common(name)
            case "grouped" if name in ("Source", "Forced", "Spectrum"):
                return self.derive(self.grouped(self.base(name)))
            case "cut" if name in ("Object", "Source", "Star"):
                return self.derive(self.cut(self.base(name)))
            case "union":
                return self.derive(self.union(name))
        return self.base(name)

    def joined(self, name: str) -> tuple[q.Node, tuple[Field, ...]]:
        """A derived table of two relations, tied by key or by distance; perhaps grouped."""
        one = self.base(name)
        if name in ("Object", "Star") and self.luck(0.5):
            pair = self.near(
                one, self.base(self.rng.choice(("Object", "Star"))), radius=self.rng.choice((4.7, 29.9, 61.3)) * ARCSEC
            )
        else:
            others = {"Object": "Source", "Source": "Object", "Forced": "Object", "Star": "Spectrum", "Spectrum": "Star"}
            pair = self.key_join(one, self.base(others[name]))
        if not all(isinstance(field.node, q.Column) for field in pair.fields):
            return self.narrowed(one)
        unique: dict[str, Field] = {}
        for field in pair.fields:
            unique.setdefault(field.name, field)
        if self.luck(0.3):
            return self.grouped_pair(pair, unique)
        items = tuple(q.Item(field.node, "", field.name) for field in unique.values())
        where = self.all_of([*pair.where, *([self.predicate(pair, 0)] if self.luck(0.4) else [])])
        return q.Select(items=items, source=pair.source, where=where), tuple(unique.values())

    def grouped_pair(self, pair: Relation, unique: dict[str, Field]) -> tuple[q.Node, tuple[Field, ...]]:
        """Group the rows of a join by keys and positions of one side or of both."""
        keys = [f for f in unique.values() if f.role is not Role.VALUE]
        if self.luck(0.3):
            spare = [f for f in keys if f.name not in ("objectId", "star", "starId")]
            left_out = self.rng.choice(spare) if spare else None
            keys = [f for f in keys if f is not left_out]
        count = Field(keys[0].node, "n", Kind.INT, Role.VALUE, (1, 2, 3))
        items = (*(q.Item(f.node, "", f.name) for f in keys), q.Item(q.Aggregate("COUNT", None), "n", "n"))
        having = q.Compare(">", q.Aggregate("COUNT", None), q.Literal(1)) if self.luck(0.3) else None
        query = q.Select(
            items=items, source=pair.source, where=self.all_of(list(pair.where)), group=tuple(f.node for f in keys), having=having
        )  # fmt: skip
        return query, (*keys, count)

    def all_of(self, items: list[q.Node]) -> q.Node | None:
        return None if not items else items[0] if len(items) == 1 else q.And(tuple(items))

    def kind(self, *, inner: bool = False) -> str:
        return super().kind(inner=True) if inner else self.choose(KINDS)

    def where(self, relation: Relation) -> q.Node | None:
        found = super().where(relation)
        if not self.luck(0.45):
            return found
        nested = self.subquery(relation)
        if self.luck(0.15):
            nested = q.Or((nested, self.predicate(relation, 0)))
        if self.luck(0.1):
            nested = q.Not(nested)
        return nested if found is None else q.And((found, nested))

    def in_key(self, relation: Relation) -> q.Node:
        """Sometimes over groups of the key, or over keys that are not NULL."""
        found = super().in_key(relation)
        if not isinstance(found, q.InQuery) or not isinstance(found.query, q.Select):
            return found
        (item,) = found.query.items
        assert isinstance(item, q.Item)
        if self.luck(0.25):
            having = q.Compare(">", q.Aggregate("COUNT", None), q.Literal(1))
            return replace(found, query=replace(found.query, group=(item.value,), having=having))
        if self.luck(0.3):
            given = q.IsNull(item.value, True)
            where = given if found.query.where is None else q.And((found.query.where, given))
            return replace(found, query=replace(found.query, where=where))
        return found

    def group_key(self, relation: Relation) -> tuple[q.Node, Kind]:
        keys = [f for f in relation.fields if f.role in (Role.KEY, Role.DIRECTOR_KEY)]
        if keys and self.luck(0.55):
            field = self.rng.choice(keys)
            return field.node, field.kind
        return super().group_key(relation)
