"""Random conditions: comparisons, regions, keys, boxes of coordinates, sub-queries."""

from __future__ import annotations

from collections.abc import Mapping

from tests.support import query_ast as q
from tests.support.scope import Field, Generating, Kind, Relation, fields_of
from tests.support.sky_builder import ARCSEC, Role
from tests.support.sky_truth import offset

PREDICATES: Mapping[str, float] = {
    "compare": 14, "fields": 4, "between": 6, "in": 6, "like": 4, "null": 5, "region": 14, "box": 6, "key": 8,
    "within": 3, "or": 5, "not": 4, "subquery": 7, "contains_value": 1,
}  # fmt: skip

REGION_RADII: Mapping[float, float] = {
    0.5003 * ARCSEC: 1, 7.001 * ARCSEC: 2, 61.7 * ARCSEC: 2, 0.1: 1, 1.5: 2, 12.0: 3, 47.3: 5, 100.5: 2, 168.0: 0.5,
}  # fmt: skip

OPS = ("=", "<>", "<", "<=", ">", ">=")


class PredicateMixin(Generating):
    """Conditions over the fields of a relation."""

    def where(self, relation: Relation) -> q.Node | None:
        """What the relation's comma joins need, and some more."""
        items = list(relation.where)
        items += [self.predicate(relation, 2) for _ in range(self.choose({0: 4, 1: 6, 2: 2, 3: 0.5}))]
        return None if not items else items[0] if len(items) == 1 else q.And(tuple(items))

    def predicate(self, relation: Relation, depth: int = 1) -> q.Node:
        weights = dict(PREDICATES)
        if depth <= 0:
            weights |= {"or": 0, "not": 0, "subquery": 0}
        if not relation.positions():
            weights |= {"region": 0, "box": 0, "within": 0, "contains_value": 0}
        match self.choose(weights):
            case "fields":
                return self.compare_values(relation)
            case "between":
                return self.between(relation)
            case "in":
                return self.in_list(relation)
            case "like":
                return self.like(relation)
            case "null":
                return q.IsNull(self.rng.choice(relation.fields).node, self.luck(0.4))
            case "region":
                return self.region(relation)
            case "box":
                return self.coordinates(relation)
            case "key":
                return self.key(relation)
            case "within":
                return self.within_constant(relation)
            case "or":
                return q.Or(tuple(self.predicate(relation, depth - 1) for _ in range(self.rng.choice((2, 2, 3)))))
            case "not":
                return q.Not(self.predicate(relation, depth - 1))
            case "subquery":
                return self.subquery(relation)
            case "contains_value":
                at = self.rng.choice(relation.positions())
                return q.Compare(self.rng.choice((">=", "<")), q.Inside(at, self.any_region(), "value"), q.Literal(1))
        field = self.rng.choice([f for f in relation.fields if f.kind is not Kind.APPROX])
        if field.kind is Kind.BOOL:
            return q.Compare(self.rng.choice(("=", "=", "<>")), *self.swapped(field.node, self.sample(field)))
        return q.Compare(self.rng.choice(OPS), *self.swapped(field.node, self.sample(field)))

    def swapped(self, one: q.Node, two: q.Node) -> tuple[q.Node, q.Node]:
        return (two, one) if self.luck(0.15) else (one, two)

    def compare_values(self, relation: Relation) -> q.Node:
        kind = self.choose({Kind.INT: 3, Kind.EXACT: 3, Kind.TEXT: 1})
        return q.Compare(self.rng.choice(OPS), self.value_of(relation, kind, 1)[0], self.value_of(relation, kind, 1)[0])

    def between(self, relation: Relation) -> q.Node:
        field = self.rng.choice([f for f in relation.fields if f.kind not in (Kind.APPROX, Kind.BOOL)])
        low, high = self.sample(field), self.sample(field)
        if self.luck(0.85) and type(low.value) is type(high.value) and low.value > high.value:  # type: ignore[operator]
            low, high = high, low
        return q.Between(field.node, low, high, self.luck(0.2))

    def in_list(self, relation: Relation) -> q.Node:
        field = self.rng.choice([f for f in relation.fields if f.kind in (Kind.INT, Kind.TEXT, Kind.EXACT)])
        items: tuple[q.Node, ...] = tuple(self.sample(field) for _ in range(self.rng.choice((1, 2, 4))))
        if self.luck(0.06):
            items = (*items, q.Literal(None))
        return q.InList(field.node, items, self.luck(0.25))

    def like(self, relation: Relation) -> q.Node:
        fields = relation.of(Kind.TEXT)
        if not fields:
            return self.between(relation)
        pattern = self.rng.choice(("%", "M%", "m%", "%1", "ngc\\_%", "ngc_1_", "_", "%e%", "", "It''s", "It's", "r", "%Ä%"))
        return q.Like(self.rng.choice(fields).node, pattern.replace("\\", ""), self.luck(0.25), self.luck(0.25))

    def key(self, relation: Relation) -> q.Node:
        """Lookups by key: =, IN, BETWEEN; known and unknown keys."""
        fields = [field for field in relation.fields if field.is_big]
        if not fields:
            return self.in_list(relation)
        field = self.rng.choice(fields)
        match self.choose({"equal": 5, "in": 5, "range": 1, "or": 1}):
            case "equal":
                return q.Compare("=", *self.swapped(field.node, self.sample(field)))
            case "in":
                return q.InList(field.node, tuple(self.sample(field) for _ in range(self.rng.choice((1, 2, 5, 12)))))
            case "range":
                return self.between(Relation(relation.source, (field,)))
        return q.Or(tuple(q.Compare("=", field.node, self.sample(field)) for _ in range(2)))

    # -- the sky -----------------------------------------------------------------------------------------------------------

    def place(self) -> tuple[float, float]:
        lon, lat = self.rng.choice(self.sky.places)
        if self.luck(0.5):
            lon, lat = offset(lon, lat, self.rng.uniform(0, 360), self.radius())
        if self.luck(0.05):
            lon = lon - 360.0 if self.luck(0.5) else lon + 360.0
        return round(lon, 7) if self.luck(0.5) else lon, lat

    def radius(self) -> float:
        """Degrees, from 0.5 arcsec to most of the sky."""
        return self.choose(REGION_RADII)

    def any_region(self) -> q.Node:
        match self.choose({"circle": 8, "polygon": 3, "box": 2}):
            case "circle":
                lon, lat = self.place()
                return q.Circle(q.Literal(lon), q.Literal(lat), self.radius())
            case "polygon":
                return self.polygon()
        lon, lat = self.place()
        width = min(self.radius(), 100.0)
        return q.Box((lon, lat), (width, width * self.rng.choice((0.3, 1.0, 1.4))))

    def polygon(self) -> q.Polygon:
        """A star-shaped polygon about a place, often not convex; sometimes around a pole."""
        center = self.place()
        reach = min(self.radius(), 50.0)
        count = self.rng.choice((3, 4, 4, 5, 8))
        turn = self.rng.uniform(0, 360)
        sign = self.rng.choice((-1, 1))
        vertices = [
            offset(*center, (turn + sign * 360 * (k + self.rng.uniform(0, 0.4)) / count) % 360, reach * self.rng.uniform(0.35, 1.0))
            for k in range(count)
        ]
        return q.Polygon(center, tuple(vertices))

    def region(self, relation: Relation) -> q.Node:
        at = self.rng.choice(relation.positions())
        form = self.choose({"contains=1": 8, "1=contains": 2, "contains=0": 2, "intersects=1": 1})
        if self.luck(0.06):
            return self.exactly_there(at)
        if self.luck(0.12):
            return q.Or(tuple(q.Inside(at, self.any_region()) for _ in range(self.rng.choice((2, 3)))))
        return q.Inside(at, self.any_region(), form)

    def exactly_there(self, at: tuple[q.Node, q.Node]) -> q.Node:
        """A cone of radius 0 on a row, or a distance that is not below 0."""
        table = next(table for table in self.sky.tables if table.ra)
        row = self.rng.choice([r for r in table.clean.select([table.ra, table.dec]).to_pylist() if None not in r.values()])
        lon, lat = row[table.ra], row[table.dec]
        if self.luck(0.7):
            return q.Inside(at, q.Circle(q.Literal(lon), q.Literal(lat), 0.0))
        return q.Within(at, (q.Literal(lon), q.Literal(lat)), self.rng.choice(("<", "<=", ">")), 0.0)

    def within_constant(self, relation: Relation) -> q.Node:
        at = self.rng.choice(relation.positions())
        lon, lat = self.place()
        center = (q.Literal(lon), q.Literal(lat))
        one, two = (center, at) if self.luck(0.4) else (at, center)
        op = self.choose({"<": 5, "<=": 3, ">": 1, ">=": 1})
        return q.Within(one, two, op, self.radius(), self.rng.choice(("points", "numbers")), self.luck(0.2))

    def coordinates(self, relation: Relation) -> q.Node:
        """Comparisons on ra and dec, as people write boxes; with bounds beyond 360 or crossing RA 0."""
        lon, lat = self.rng.choice(relation.positions())
        x, y = self.rng.choice(self.sky.places)
        reach = max(self.radius(), 0.01)
        low, high = q.Literal(round(x - reach, 4)), q.Literal(round(x + reach, 4))
        match self.choose({"dec": 3, "ra": 3, "both": 4, "wrap": 2}):
            case "dec":
                return q.Compare(self.rng.choice(("<", "<=", ">", ">=")), *self.swapped(lat, q.Literal(round(y, 3))))
            case "ra":
                return q.Compare(self.rng.choice(("<", "<=", ">", ">=")), *self.swapped(lon, q.Literal(round(x, 3))))
            case "wrap":
                return q.Or(
                    (q.Compare(">=", lon, q.Literal(360 - min(reach, 180.0))), q.Compare("<", lon, q.Literal(min(reach, 180.0))))
                )
        box: list[q.Node] = [q.Between(lat, q.Literal(round(y - reach, 4)), q.Literal(round(y + reach, 4)))]
        box += [q.Between(lon, low, high)] if self.luck(0.5) else [q.Compare(">", lon, low), q.Compare("<", lon, high)]
        return q.And(tuple(box))

    # -- sub-queries -------------------------------------------------------------------------------------------------------

    def base(self, name: str) -> Relation:
        table = self.sky.table(name)
        alias = self.new_alias()
        return Relation(q.TableRef(self.sky.name, table.name, alias), fields_of(table, alias))

    def inner_where(self, relation: Relation, *extra: q.Node) -> q.Node | None:
        items = [*extra, *(self.predicate(relation, 0) for _ in range(self.choose({0: 1, 1: 3})))]
        return None if not items else items[0] if len(items) == 1 else q.And(tuple(items))

    def subquery(self, relation: Relation) -> q.Node:
        match self.choose({"in_key": 6, "in_value": 2, "exists": 5, "near": 1, "scalar": 3, "count": 2}):
            case "in_key":
                return self.in_key(relation)
            case "in_value":
                return self.in_value(relation)
            case "exists":
                return self.exists(relation)
            case "near":
                return self.exists_near(relation)
            case "scalar":
                return self.scalar(relation)
        return self.correlated_count(relation)

    def joined_by_key(self, relation: Relation) -> tuple[Field, Relation, Field] | None:
        """A key in scope, a table of its family, and that table's column of the same meaning."""
        families = {"objectId": ("Object", "Source", "Forced"), "starId": ("Star", "Spectrum"), "star": ("Star", "Spectrum")}
        # A shared column of USING has no qualifier: inside the sub-query its name would mean the inner table's column.
        fields = [field for field in relation.fields if field.name in families and isinstance(field.node, q.Column)]
        if not fields:
            return None
        field = self.rng.choice(fields)
        inner = self.base(self.rng.choice(families[field.name]))
        role = Role.DIRECTOR_KEY if inner.has(Role.DIRECTOR_KEY) else Role.KEY
        return field, inner, inner.role(role)

    def in_key(self, relation: Relation) -> q.Node:
        """IN over a key of the family; the inner column may hold NULL, which makes NOT IN empty."""
        found = self.joined_by_key(relation)
        if found is None:
            return self.in_value(relation)
        field, inner, key = found
        query = q.Select(items=(q.Item(key.node, "", key.name),), source=inner.source, where=self.inner_where(inner))
        return q.InQuery(field.node, query, self.luck(0.3))

    def in_value(self, relation: Relation) -> q.Node:
        fields = [f for f in relation.fields if f.kind is Kind.TEXT or (f.kind is Kind.INT and not f.is_big)]
        if not fields:
            return self.between(relation)
        field = self.rng.choice(fields)
        inner = self.base(self.rng.choice([t.name for t in self.sky.tables if t.name != "Forced" or field.kind is not Kind.INT]))
        candidates = [f for f in inner.of(field.kind) if not f.is_big]
        if not candidates:
            return self.between(relation)
        other = self.rng.choice(candidates)
        query = q.Select(items=(q.Item(other.node, "", other.name),), source=inner.source, where=self.inner_where(inner))
        return q.InQuery(field.node, query, self.luck(0.3))

    def exists(self, relation: Relation) -> q.Node:
        found = self.joined_by_key(relation)
        if found is None:
            return self.in_value(relation)
        field, inner, key = found
        condition = self.inner_where(inner, q.Compare("=", key.node, field.node))
        query = q.Select(items=(q.Item(key.node, "", key.name),), source=inner.source, where=condition)
        return q.Exists(query, self.luck(0.35))

    def exists_near(self, relation: Relation) -> q.Node:
        positions = relation.positions()
        if not positions:
            return self.exists(relation)
        inner = self.base(self.rng.choice(("Object", "Star")))
        near = q.Within(
            self.rng.choice(positions), inner.positions()[0], "<", self.choose({5.3 * ARCSEC: 3, 29.9 * ARCSEC: 2, 0.2: 1})
        )
        key = inner.keys()[0]
        query = q.Select(items=(q.Item(key.node, "", key.name),), source=inner.source, where=self.inner_where(inner, near))
        return q.Exists(query, self.luck(0.35))

    def scalar(self, relation: Relation) -> q.Node:
        """Compare with an aggregate over another table; over no rows it is NULL."""
        inner = self.base(self.rng.choice(("Object", "Source", "Star", "Forced")))
        field = self.rng.choice(inner.of(Kind.EXACT))
        value = q.Item(q.Aggregate(self.rng.choice(("MIN", "MAX", "SUM")), field.node), "v", "v")
        query = q.Select(items=(value,), source=inner.source, where=self.inner_where(inner))
        return q.Compare(self.rng.choice(("<", ">=", "=")), self.value_of(relation, Kind.EXACT, 0)[0], q.Scalar(query))

    def correlated_count(self, relation: Relation) -> q.Node:
        found = self.joined_by_key(relation)
        if found is None:
            return self.scalar(relation)
        field, inner, key = found
        condition = self.inner_where(inner, q.Compare("=", key.node, field.node))
        query = q.Select(items=(q.Item(q.Aggregate("COUNT", None), "n", "n"),), source=inner.source, where=condition)
        return q.Compare(self.rng.choice(("=", ">", "<=")), q.Scalar(query), q.Literal(self.rng.choice((0, 1, 2))))
