"""Random queries over a `Sky`: a seed and the weights below determine a tree of `query_ast`.

`QueryGenerator(sky, seed).query()` picks a shape (plain, aggregate, distinct, window, set operation), a FROM clause from
`relations`, and fills the rest from `values` and `predicates`. Kinds of values keep the comparison exact: only `Kind.APPROX` may differ
in its last digits, and such values feed nothing but the output. The weights are data: a shape at 0 never occurs.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace

from tests.support import query_ast as q
from tests.support.predicates import PredicateMixin
from tests.support.relations import RelationMixin
from tests.support.scope import Field, Kind, Relation
from tests.support.sky_builder import Sky
from tests.support.values import ValueMixin

SHAPES: Mapping[str, float] = {"plain": 46, "aggregate": 30, "distinct": 6, "window": 6, "set": 9, "everything": 3}


class QueryGenerator(RelationMixin, PredicateMixin, ValueMixin):
    """Generates one query per instance. `shapes` and `sources` replace the default weights."""

    def __init__(
        self, sky: Sky, seed: int | str, *, shapes: Mapping[str, float] = SHAPES, sources: Mapping[str, float] | None = None
    ) -> None:
        self.sky = sky
        self.rng = random.Random(f"query {seed}")
        self.shapes = shapes
        self.setup_relations(sources)

    def query(self) -> q.Query:
        """Return the query."""
        body = self.body()
        return q.With(tuple(self.ctes), body) if self.ctes else body

    def body(self) -> q.Select | q.SetOp:
        match self.choose(self.shapes):
            case "plain":
                return self.plain()
            case "aggregate":
                return self.aggregate()
            case "distinct":
                return self.distinct()
            case "window":
                return self.window()
            case "everything":
                return self.everything()
        return self.set_operation()

    # -- shapes ------------------------------------------------------------------------------------------------------------

    def plain(self) -> q.Select:
        relation = self.relation_tree()
        items: list[q.Item] = []
        kinds: list[Kind] = []
        taken: set[str] = set()
        for _ in range(self.rng.choice((1, 2, 2, 3, 4))):
            if self.rng.random() < 0.6:
                field = self.rng.choice(relation.fields)
                items.append(self.output(field.node, len(items), taken, field))
                kinds.append(field.kind)
            else:
                kind = self.choose({Kind.INT: 3, Kind.EXACT: 3, Kind.TEXT: 2, Kind.APPROX: 3})
                value, kind = self.value_of(relation, kind)
                items.append(self.output(value, len(items), taken))
                kinds.append(kind)
        query = q.Select(items=tuple(items), source=relation.source, where=self.where(relation))
        return self.sorted_and_cut(query, kinds, self.sort_values(relation))

    def everything(self) -> q.Select:
        relation = self.base(self.any_table())
        table = relation.source
        assert isinstance(table, q.TableRef)
        names = tuple(field.name for field in relation.fields)
        query = q.Select(items=(q.Star(table.alias, names, self.rng.random() < 0.5),), source=table, where=self.where(relation))
        kinds = [field.kind for field in relation.fields]
        return self.sorted_and_cut(query, kinds, self.sort_values(relation))

    def distinct(self) -> q.Select:
        relation = self.relation_tree()
        items, kinds = self.exact_items(relation, self.rng.choice((1, 1, 2)))
        query = q.Select(items=tuple(items), source=relation.source, where=self.where(relation), distinct=True)
        return self.sorted_and_cut(query, kinds, [])

    def aggregate(self) -> q.Select:
        relation = self.relation_tree()
        keys = [self.group_key(relation) for _ in range(self.choose({0: 4, 1: 7, 2: 3}))]
        items: list[q.Item] = []
        kinds: list[Kind] = []
        for value, kind in keys:
            if self.rng.random() < 0.85:
                items.append(self.output(value, len(items), set()))
                kinds.append(kind)
        for _ in range(self.rng.choice((1, 2, 3))):
            value, kind = self.aggregate_value(relation)
            items.append(self.output(value, len(items), set()))
            kinds.append(kind)
        having = self.having(relation) if self.rng.random() < (0.3 if keys else 0.08) else None
        sets = self.choose({"": 88, "ROLLUP": 4, "CUBE": 4, "SETS": 4}) if keys else ""
        query = q.Select(
            items=tuple(items),
            source=relation.source,
            where=self.where(relation),
            group=tuple(value for value, _ in keys),
            sets=sets,
            having=having,
        )
        hidden = [value for value, _ in keys] + [q.Aggregate("COUNT", None)]
        return self.sorted_and_cut(query, kinds, hidden)

    def window(self) -> q.Select:
        relation = self.relation_tree()
        items: list[q.Item] = []
        kinds: list[Kind] = []
        for field in relation.keys() or [self.rng.choice(relation.fields)]:
            items.append(self.output(field.node, len(items), set()))
            kinds.append(field.kind)
        value, kind = self.window_value(relation)
        items.append(self.output(value, len(items), set()))
        kinds.append(kind)
        query = q.Select(items=tuple(items), source=relation.source, where=self.where(relation))
        if self.rng.random() < 0.35:
            rank, kind = self.window_value(relation)
            test = q.Compare(self.rng.choice(("=", "<=")), rank, q.Literal(self.rng.choice((1, 1, 2))))
            query = query if kind is Kind.TEXT else replace(query, qualify=test)
        return self.sorted_and_cut(query, kinds, [])

    def set_operation(self) -> q.SetOp:
        wanted = [self.choose({Kind.INT: 4, Kind.EXACT: 2, Kind.TEXT: 3}) for _ in range(self.rng.choice((1, 1, 2)))]

        def operand() -> q.Select:
            relation = self.relation_tree(simple=True)
            values = [self.value_of(relation, kind)[0] for kind in wanted]
            items = tuple(self.output(value, i, set()) for i, value in enumerate(values))
            return q.Select(items=items, source=relation.source, where=self.where(relation), distinct=self.rng.random() < 0.15)

        left: q.Select | q.SetOp = operand()
        for _ in range(self.choose({1: 4, 2: 1})):
            op = self.choose({"UNION": 4, "INTERSECT": 2, "EXCEPT": 3})
            left = q.SetOp(op=op, all=self.rng.random() < 0.4, left=left, right=operand())
        assert isinstance(left, q.SetOp)
        if self.rng.random() < 0.4:
            left = replace(left, order=self.orders(left, wanted, []))
            if self.rng.random() < 0.3:
                left = replace(left, offset=self.rng.randrange(6))
        return left

    # -- pieces ------------------------------------------------------------------------------------------------------------

    def output(self, value: q.Node, number: int, taken: set[str], field: Field | None = None) -> q.Item:
        """An item; a bare column keeps its declared name where that is free."""
        if field is not None and field.name.lower() not in taken and self.rng.random() < 0.6:
            taken.add(field.name.lower())
            return q.Item(value, "", field.name)
        alias = f"c{number}"
        return q.Item(value, alias, alias)

    def exact_items(self, relation: Relation, count: int) -> tuple[list[q.Item], list[Kind]]:
        items, kinds = [], []
        for number in range(count):
            value, kind = self.group_key(relation)
            items.append(self.output(value, number, set()))
            kinds.append(kind)
        return items, kinds

    def sort_values(self, relation: Relation) -> list[q.Node]:
        """What a plain query may be sorted by besides its output."""
        return [field.node for field in relation.fields if field.kind is not Kind.APPROX]

    def sorted_and_cut(self, query: q.Select, kinds: list[Kind], hidden: list[q.Node]) -> q.Select:
        """Perhaps add ORDER BY (ties included), TOP and OFFSET."""
        if self.rng.random() < 0.4:
            query = replace(query, order=self.orders(query, kinds, hidden))
        if self.rng.random() < (0.55 if query.order else 0.12):
            query = replace(query, top=self.rng.choice((0, 1, 2, 3, 5, 10, 50, 1000)))
        if self.rng.random() < (0.2 if query.order else 0.04):
            query = replace(query, offset=self.rng.choice((0, 1, 2, 7, 40)))
        return query

    def orders(self, query: q.Select | q.SetOp, kinds: list[Kind], hidden: list[q.Node]) -> tuple[q.Order, ...]:
        items = q.outputs(query)
        places = [i for i, kind in enumerate(kinds) if kind is not Kind.APPROX]
        only_outputs = isinstance(query, q.SetOp) or query.distinct
        found: list[q.Order] = []
        for _ in range(self.rng.choice((1, 1, 2, 3))):
            is_down = self.rng.random() < 0.4
            if hidden and not only_outputs and self.rng.random() < 0.3:
                found.append(q.Order(-1, self.rng.choice(hidden), is_down))
            elif places:
                place = self.rng.choice(places)
                item = items[place]
                assert isinstance(item, q.Item)
                forms = ["ordinal"]
                if item.alias or isinstance(query, q.SetOp):
                    forms.append("name")
                if not only_outputs and not isinstance(item.value, q.Literal):
                    forms.append("value")
                form = self.rng.choice(forms)
                found.append(q.Order(place, item.value if form == "value" else None, is_down, form))
        return tuple(found)
