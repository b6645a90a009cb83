"""Random value expressions: arithmetic, functions, aggregates, windows."""

from __future__ import annotations

from dataclasses import replace

from tests.support import query_ast as q
from tests.support.scope import Field, Generating, Kind, Relation

Valued = tuple[q.Node, Kind]


class ValueMixin(Generating):
    """Expressions over the fields of a relation. Every result says its kind."""

    def value_of(self, relation: Relation, kind: Kind, depth: int = 2) -> Valued:
        """A value of `kind` (a literal where the relation has no such field)."""
        match kind:
            case Kind.INT:
                return self.integer(relation, depth), kind
            case Kind.EXACT:
                return self.exact(relation, depth), kind
            case Kind.TEXT:
                return self.text(relation, depth), kind
            case Kind.POSITION:
                fields = relation.of(Kind.POSITION)
                return (self.rng.choice(fields).node, kind) if fields else (self.exact(relation, depth), Kind.EXACT)
        return self.approximate(relation), Kind.APPROX

    def small_integers(self, relation: Relation) -> list[Field]:
        return [field for field in relation.of(Kind.INT) if not field.is_big]

    def integer(self, relation: Relation, depth: int = 2, *, small: bool = False) -> q.Node:
        fields = self.small_integers(relation) if small else relation.of(Kind.INT)
        if depth <= 0 or self.luck(0.45):
            return self.rng.choice(fields).node if fields and self.luck(0.9) else q.Literal(self.rng.randint(-5, 9))
        inner = self.integer(relation, depth - 1, small=small)
        match self.choose({"add": 4, "times": 2, "divide": 4, "mod": 3, "abs": 1, "coalesce": 2, "case": 2, "minus": 1, "cast": 1}):
            case "add":
                other = self.integer(relation, depth - 1, small=True)
                return q.Binary(self.rng.choice("+-"), inner, other)
            case "times":
                return q.Binary("*", inner, q.Literal(self.rng.choice((-3, -1, 2, 7))))
            case "divide":
                return q.Quotient(inner, q.Literal(self.rng.choice((-3, 2, 2, 3, 5))))
            case "mod":
                return q.Call("MOD", (inner, q.Literal(self.rng.choice((2, 3, 7)))))
            case "abs":
                return q.Call("ABS", (inner,))
            case "coalesce":
                return q.Call("COALESCE", (inner, q.Literal(self.rng.randint(-1, 3))))
            case "case":
                default = self.integer(relation, 0, small=small) if self.luck(0.6) else None
                return q.Case(((self.predicate(relation, 0), inner),), default)
            case "minus":
                return q.Negative(inner)
        return q.Cast(inner, "BIGINT")

    def exact(self, relation: Relation, depth: int = 2) -> q.Node:
        fields = relation.of(Kind.EXACT)
        if depth <= 0 or self.luck(0.4):
            return self.rng.choice(fields).node if fields and self.luck(0.9) else q.Literal(self.rng.randint(-64, 64) / 8)
        inner = self.exact(relation, depth - 1)
        match self.choose(
            {"add": 4, "mixed": 3, "times": 2, "halve": 2, "round": 4, "abs": 1, "coalesce": 1, "case": 1, "minus": 1, "cast": 1}
        ):
            case "add":
                return q.Binary(self.rng.choice("+-"), inner, self.exact(relation, depth - 1))
            case "mixed":
                return q.Binary(self.rng.choice("+-*"), inner, self.integer(relation, 0, small=True))
            case "times":
                return q.Binary("*", inner, q.Literal(self.rng.choice((-1.5, 0.25, 2.0, 3))))
            case "halve":
                return q.Binary("/", inner, q.Literal(self.rng.choice((2, 4, 0.5, -8.0))))
            case "round":
                return q.Call(self.rng.choice(("FLOOR", "CEILING", "ROUND", "TRUNCATE")), (inner,))
            case "abs":
                return q.Call("ABS", (inner,))
            case "coalesce":
                return q.Call("COALESCE", (inner, q.Literal(self.rng.choice((0.0, -1.25)))))
            case "case":
                return q.Case(((self.predicate(relation, 0), inner),), self.exact(relation, 0))
            case "minus":
                return q.Negative(inner)
        return q.Cast(self.integer(relation, 1, small=True), "DOUBLE PRECISION")

    def text(self, relation: Relation, depth: int = 2) -> q.Node:
        fields = relation.of(Kind.TEXT)
        if depth <= 0 or self.luck(0.55):
            return self.rng.choice(fields).node if fields and self.luck(0.9) else q.Literal(self.rng.choice(("r", "It's", "")))
        inner = self.text(relation, depth - 1)
        match self.choose({"case": 3, "concat": 3, "coalesce": 2, "branch": 1}):
            case "case":
                return q.Call(self.rng.choice(("UPPER", "LOWER")), (inner,))
            case "concat":
                return q.Binary("||", inner, self.text(relation, depth - 1))
            case "coalesce":
                return q.Call("COALESCE", (inner, q.Literal("none")))
        return q.Case(((self.predicate(relation, 0), inner),), None)

    def approximate(self, relation: Relation) -> q.Node:
        positions = relation.positions()
        if positions and self.luck(0.5):
            return self.some_distance(positions)
        inner = self.exact(relation, 1)
        match self.choose({"sqrt": 2, "log": 2, "log10": 1, "power": 1, "sin": 1, "divide": 2, "exp": 1}):
            case "sqrt":
                return q.Call("SQRT", (q.Call("ABS", (inner,)),))
            case "log":
                return q.Call("LOG", (q.Binary("+", q.Call("ABS", (inner,)), q.Literal(1)),))
            case "log10":
                return q.Call("LOG10", (q.Binary("+", q.Call("ABS", (inner,)), q.Literal(0.5)),))
            case "power":
                return q.Call("POWER", (inner, q.Literal(2)))
            case "sin":
                return q.Call("SIN", (q.Call("RADIANS", (inner,)),))
            case "divide":
                return q.Binary("/", inner, q.Literal(self.rng.choice((3, 7.0))))
        return q.Call("EXP", (q.Binary("/", inner, q.Literal(512)),))

    def some_distance(self, positions: list[tuple[q.Node, q.Node]]) -> q.Node:
        one = self.rng.choice(positions)
        if len(positions) > 1 and self.luck(0.7):
            two = self.rng.choice(positions)
        else:
            lon, lat = self.rng.choice(self.sky.places)
            two = (q.Literal(lon), q.Literal(lat))
        return q.Distance(one, two, self.rng.choice(("points", "numbers")))

    def group_key(self, relation: Relation) -> Valued:
        """Something to group by: a column, or an expression of few values."""
        fields = [field for field in relation.fields if field.kind is not Kind.APPROX]
        if self.luck(0.6):
            field = self.rng.choice(fields)
            return field.node, field.kind
        match self.choose({"int": 3, "floor": 3, "text": 2}):
            case "int":
                return q.Quotient(self.integer(relation, 1), q.Literal(2)), Kind.INT
            case "floor":
                return q.Call("FLOOR", (q.Binary("/", self.exact(relation, 1), q.Literal(4)),)), Kind.EXACT
        return q.Call("UPPER", (self.text(relation, 1),)), Kind.TEXT

    def exact_aggregate(self, relation: Relation) -> Valued:
        """An aggregate whose value is exact, for HAVING, ORDER BY and arithmetic."""
        match self.choose({"rows": 4, "count": 3, "distinct": 2, "sum": 4, "isum": 3, "extreme": 5}):
            case "rows":
                return q.Aggregate("COUNT", None), Kind.INT
            case "count":
                return q.Aggregate("COUNT", self.rng.choice(relation.fields).node), Kind.INT
            case "distinct":
                return q.Aggregate("COUNT", self.group_key(relation)[0], True), Kind.INT
            case "sum":
                return q.Aggregate("SUM", self.exact(relation, 1), self.luck(0.08)), Kind.EXACT
            case "isum":
                return q.Aggregate("SUM", self.integer(relation, 1, small=True)), Kind.INT
        value, kind = self.group_key(relation)
        return q.Aggregate(self.rng.choice(("MIN", "MAX")), value), kind

    def aggregate_value(self, relation: Relation) -> Valued:
        value, kind = self.any_aggregate(relation)
        if isinstance(value, q.Aggregate) and self.luck(0.1):
            value = replace(value, only=self.predicate(relation, 0))
        return value, kind

    def any_aggregate(self, relation: Relation) -> Valued:
        match self.choose({"exact": 6, "avg": 3, "spread": 2, "middle": 1, "mix": 2}):
            case "exact":
                return self.exact_aggregate(relation)
            case "avg":
                value = self.exact(relation, 1) if self.luck(0.6) else self.integer(relation, 1, small=True)
                return q.Aggregate("AVG", value), Kind.APPROX
            case "spread":
                return q.Aggregate(self.rng.choice(("STDDEV", "VARIANCE")), self.exact(relation, 1)), Kind.APPROX
            case "middle":
                return q.Aggregate("MEDIAN", self.exact(relation, 1)), Kind.APPROX
        one = q.Aggregate("SUM", self.integer(relation, 1, small=True))
        two = q.Aggregate("COUNT", None)
        if self.luck(0.3):
            return q.Quotient(one, q.Literal(2)), Kind.INT
        return q.Binary(self.rng.choice("+-"), one, two), Kind.INT

    def having(self, relation: Relation) -> q.Node:
        if self.luck(0.5):
            return q.Compare(
                self.rng.choice((">", ">=", "=", "<>")), q.Aggregate("COUNT", None), q.Literal(self.rng.choice((1, 1, 2, 3)))
            )
        value, kind = self.exact_aggregate(relation)
        if kind not in (Kind.INT, Kind.EXACT, Kind.POSITION):
            return q.IsNull(value, True)
        return q.Compare(self.rng.choice((">", "<=")), value, q.Literal(self.rng.randint(-4, 12)))

    def window_value(self, relation: Relation) -> Valued:
        """A window whose value does not depend on the order of peers."""
        partition = tuple(self.group_key(relation)[0] for _ in range(self.choose({0: 2, 1: 5, 2: 1})))
        if relation.keys() and self.luck(0.3):
            partition = (*partition, self.rng.choice(relation.keys()).node)
        keys = tuple((self.group_key(relation)[0], self.luck(0.4)) for _ in range(self.choose({1: 3, 2: 1})))
        if self.luck(0.4):
            return q.Window(q.Call(self.rng.choice(("RANK", "DENSE_RANK")), ()), partition, keys), Kind.INT
        if relation.keys() and isinstance(relation.source, q.TableRef) and self.luck(0.3):
            total = (*keys, (relation.keys()[0].node, self.luck(0.5)))
            return q.Window(q.Call("ROW_NUMBER", ()), partition, total), Kind.INT
        call, kind = self.exact_aggregate(relation)
        assert isinstance(call, q.Aggregate)
        call = q.Aggregate(call.name, call.arg)
        return q.Window(call, partition, keys if self.luck(0.3) else ()), kind
