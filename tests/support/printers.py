"""Two printers of one tree: ADQL as an astronomer may write it, and plain SQL for the oracle's DuckDB.

They share nothing but the tree. ADQL is printed in changing style (case, delimited names, spellings of the same region). The
oracle's text holds no geometry: it calls `sky_*` functions that `oracle` computes in extended precision.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime

from tests.support import query_ast as q

Regions = dict[q.Node, int]


class AdqlPrinter:
    """Print ADQL; `rng` chooses among equivalent spellings."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def query(self, node: q.Node) -> str:
        match node:
            case q.With(ctes=ctes, body=body):
                bodies = ", ".join(f"{name} AS ({self.query(cte)})" for name, cte in ctes)
                return f"WITH {bodies} {self.query(body)}"
            case q.SetOp():
                text = f"{self.operand(node.left)} {node.op}{' ALL' if node.all else ''} {self.operand(node.right)}"
                return text + self.order(node.order, node) + self.number(" OFFSET ", node.offset)
            case q.Select():
                return self.select(node)
        raise TypeError(node)

    def operand(self, node: q.Node) -> str:
        needs = isinstance(node, q.SetOp) or (isinstance(node, q.Select) and bool(node.order or node.offset or node.top))
        return f"({self.query(node)})" if needs or self.rng.random() < 0.2 else self.query(node)

    def select(self, node: q.Select) -> str:
        parts = ["SELECT "]
        if node.distinct:
            parts.append("DISTINCT ")
        if node.top is not None:
            parts.append(f"TOP {node.top} ")
        parts.append(", ".join(self.item(item) for item in node.items))
        parts.append(f" FROM {self.source(node.source)}")
        if node.where:
            parts.append(f" WHERE {self.condition(node.where)}")
        if node.group:
            parts.append(f" GROUP BY {_groups(node, self.value)}")
        if node.having:
            parts.append(f" HAVING {self.condition(node.having)}")
        if node.qualify:
            parts.append(f" QUALIFY {self.condition(node.qualify)}")
        parts.append(self.order(node.order, node))
        parts.append(self.number(" OFFSET ", node.offset))
        return "".join(parts)

    def item(self, node: q.Node) -> str:
        if isinstance(node, q.Star):
            return f"{node.alias}.*" if node.qualified else "*"
        assert isinstance(node, q.Item)
        return f"{self.value(node.value)} AS {node.alias}" if node.alias else self.value(node.value)

    def order(self, keys: tuple[q.Order, ...], query: q.Node) -> str:
        if not keys:
            return ""
        items = q.outputs(query)
        return " ORDER BY " + ", ".join(
            self.key(key, items) + (" DESC" if key.descending else self.pick("", "", " ASC")) for key in keys
        )

    def key(self, key: q.Order, items: tuple[q.Node, ...]) -> str:
        if key.form == "ordinal":
            return str(key.output + 1)
        if key.form == "name":
            item = items[key.output]
            assert isinstance(item, q.Item)
            return item.alias or item.name
        assert key.value is not None
        return self.value(key.value)

    def number(self, word: str, value: int | None) -> str:
        return "" if value is None else f"{word}{value}"

    def source(self, node: q.Node) -> str:
        match node:
            case q.TableRef(schema=schema, name=name, alias=alias):
                path = f"{self.name(schema)}.{self.name(name)}" if schema else name
                return f"{path}{self.pick(' ', ' AS ')}{alias}"
            case q.Derived(query=query, alias=alias):
                return f"({self.query(query)}){self.pick(' ', ' AS ')}{alias}"
            case q.Join(kind=","):
                return f"{self.source(node.left)}, {self.source(node.right)}"
            case q.Join():
                words = {"INNER": self.pick("JOIN", "INNER JOIN")}.get(node.kind) or node.kind + self.pick("", " OUTER") + " JOIN"
                right = f"({self.source(node.right)})" if isinstance(node.right, q.Join) else self.source(node.right)
                text = f"{self.source(node.left)} {'NATURAL ' if node.natural else ''}{words} {right}"
                if node.using:
                    return text if node.natural else text + f" USING ({', '.join(name for name, _, _ in node.using)})"
                assert node.on is not None
                return f"{text} ON {self.condition(node.on)}"
        raise TypeError(node)

    def name(self, text: str) -> str:
        return self.pick(text, text, text.lower(), text.upper(), f'"{text}"')

    def pick(self, *choices: str) -> str:
        return self.rng.choice(choices)

    def value(self, node: q.Node) -> str:
        match node:
            case q.Column(alias=alias, name=name):
                return f"{alias}.{self.name(name)}"
            case q.Flag(column=column):
                return self.value(column)
            case q.Shared(name=name):
                return name
            case q.Literal(value=value):
                return _adql_literal(value)
            case q.Binary(op=op, left=left, right=right):
                return f"({self.value(left)} {op} {self.value(right)})"
            case q.Quotient(left=left, right=right):
                return f"({self.value(left)} / {self.value(right)})"
            case q.Negative(value=value):
                return f"(-({self.value(value)}))"
            case q.Call(name=name, args=args):
                return f"{self.pick(name, name, name.lower())}({', '.join(self.value(arg) for arg in args)})"
            case q.Case(whens=whens, default=default):
                branches = " ".join(f"WHEN {self.condition(when)} THEN {self.value(then)}" for when, then in whens)
                return f"CASE {branches}{f' ELSE {self.value(default)}' if default else ''} END"
            case q.Cast(value=value, type=name):
                return f"CAST({self.value(value)} AS {name})"
            case q.Aggregate(name=name, arg=arg, distinct=distinct, only=only):
                text = f"{name}({'DISTINCT ' if distinct else ''}{'*' if arg is None else self.value(arg)})"
                return f"{text} FILTER (WHERE {self.condition(only)})" if only else text
            case q.Window():
                return _window(node, self.value, "")
            case q.Scalar(query=query):
                return f"({self.query(query)})"
            case q.Distance(one=one, two=two, form=form):
                return self.distance(one, two, form)
            case q.Inside():
                return self.contains(node)
        raise TypeError(node)

    def distance(self, one: tuple[q.Node, q.Node], two: tuple[q.Node, q.Node], form: str) -> str:
        if form == "numbers":
            return f"DISTANCE({', '.join(self.value(v) for v in (*one, *two))})"
        return f"DISTANCE({self.point(one)}, {self.point(two)})"

    def point(self, at: tuple[q.Node, q.Node]) -> str:
        frame = self.pick("", "", "'ICRS', ")
        return f"POINT({frame}{self.value(at[0])}, {self.value(at[1])})"

    def region(self, node: q.Node) -> str:
        frame = self.pick("", "", "'ICRS', ")
        match node:
            case q.Circle(lon=lon, lat=lat, radius=radius):
                center = f"{self.value(lon)}, {self.value(lat)}"
                center = self.pick(f"{frame}{center}", f"POINT({center})")
                return f"CIRCLE({center}, {_adql_literal(radius)})"
            case q.Polygon(vertices=vertices):
                pairs = [f"{_adql_literal(lon)}, {_adql_literal(lat)}" for lon, lat in vertices]
                points = [f"POINT({pair})" for pair in pairs]
                return self.pick(f"POLYGON({frame}{', '.join(pairs)})", f"POLYGON({', '.join(points)})")
            case q.Box(center=center, size=size):
                return f"BOX({frame}{', '.join(_adql_literal(x) for x in (*center, *size))})"
        raise TypeError(node)

    def contains(self, node: q.Inside) -> str:
        if node.form.startswith("intersects") and self.rng.random() < 0.5:
            return f"INTERSECTS({self.region(node.region)}, {self.point(node.at)})"
        name = "INTERSECTS" if node.form.startswith("intersects") else "CONTAINS"
        return f"{name}({self.point(node.at)}, {self.region(node.region)})"

    def condition(self, node: q.Node) -> str:
        match node:
            case q.And(items=items):
                return "(" + " AND ".join(self.condition(item) for item in items) + ")"
            case q.Or(items=items):
                return "(" + " OR ".join(self.condition(item) for item in items) + ")"
            case q.Not(item=item):
                return f"NOT ({self.condition(item)})"
            case q.Inside(form="1=contains"):
                return f"1 = {self.contains(node)}"
            case q.Inside():
                return f"{self.contains(node)} = {0 if node.is_negated else 1}"
            case q.Within(op=op, radius=radius):
                distance = self.distance(node.one, node.two, node.form)
                limit = self.value(radius) if isinstance(radius, q.Node) else _adql_literal(radius)
                return f"{limit} {_mirror(op)} {distance}" if node.is_flipped else f"{distance} {op} {limit}"
            case q.Compare(op=op, left=left, right=right):
                spelled = self.pick("<>", "!=") if op == "<>" else op
                return f"{self.value(left)} {spelled} {self.value(right)}"
            case q.Like(value=value, pattern=pattern, negated=negated, ignore_case=ignore):
                return f"{self.value(value)} {'NOT ' if negated else ''}{'ILIKE' if ignore else 'LIKE'} {_adql_literal(pattern)}"
        return _common_condition(node, self.value, self.query)


class OraclePrinter:
    """Print DuckDB SQL without geometry. Constant regions are numbered in `regions` for `sky_inside`."""

    def __init__(self, regions: Regions) -> None:
        self.regions = regions

    def statement(self, query: q.Node) -> str:
        """The whole result, not sorted and not cut; sort keys follow as columns __k0, __k1, ..."""
        if isinstance(query, q.With):
            bodies = ", ".join(f"{_quoted(name)} AS ({self.query(cte)})" for name, cte in query.ctes)
            return f"WITH {bodies} {self.statement(query.body)}"
        if isinstance(query, q.SetOp):
            return self.set_op(query)
        assert isinstance(query, q.Select)
        hidden = [f"{self.value(key.value)} AS __k{i}" for i, key in enumerate(query.order) if key.output < 0 and key.value]
        return self.select(query, hidden)

    def query(self, node: q.Node) -> str:
        """A nested query: sorted and cut as it says."""
        if isinstance(node, q.SetOp):
            return self.set_op(node)
        assert isinstance(node, q.Select)
        text = self.select(node, [])
        if node.order:
            text += " ORDER BY " + ", ".join(self.key(key) for key in node.order)
        if node.top is not None:
            text += f" LIMIT {node.top}"
        return text + (f" OFFSET {node.offset}" if node.offset is not None else "")

    def key(self, key: q.Order) -> str:
        place = str(key.output + 1) if key.output >= 0 else self.value(key.value or q.Literal(None))
        return f"{place} {'DESC' if key.descending else 'ASC'} NULLS LAST"

    def set_op(self, node: q.SetOp) -> str:
        return f"({self.query(node.left)}) {node.op}{' ALL' if node.all else ''} ({self.query(node.right)})"

    def select(self, node: q.Select, hidden: list[str]) -> str:
        columns = [self.item(item) for item in q.outputs(node)] + hidden
        text = f"SELECT {'DISTINCT ' if node.distinct else ''}{', '.join(columns)} FROM {self.source(node.source)}"
        if node.where:
            text += f" WHERE {self.condition(node.where)}"
        if node.group:
            text += f" GROUP BY {_groups(node, self.value)}"
        if node.having:
            text += f" HAVING {self.condition(node.having)}"
        if node.qualify:
            text += f" QUALIFY {self.condition(node.qualify)}"
        return text

    def item(self, node: q.Node) -> str:
        assert isinstance(node, q.Item)
        return f"{self.value(node.value)} AS {_quoted(node.alias or node.name)}"

    def source(self, node: q.Node) -> str:
        match node:
            case q.TableRef(schema=schema, name=name, alias=alias):
                return f"{f'{_quoted(schema)}.' if schema else ''}{_quoted(name)} AS {alias}"
            case q.Derived(query=query, alias=alias):
                return f"({self.query(query)}) AS {alias}"
            case q.Join(kind=","):
                return f"{self.source(node.left)} CROSS JOIN {self.source(node.right)}"
            case q.Join():
                on = node.on or q.And(tuple(q.Compare("=", q.Column(a, name), q.Column(b, name)) for name, a, b in node.using))
                return f"({self.source(node.left)} {node.kind} JOIN {self.source(node.right)} ON {self.condition(on)})"
        raise TypeError(node)

    def value(self, node: q.Node) -> str:
        match node:
            case q.Column(alias=alias, name=name):
                return f"{alias}.{_quoted(name)}"
            case q.Flag(column=column):
                return f"CAST({self.value(column)} AS INTEGER)"
            case q.Shared(name=name, aliases=aliases):
                return f"COALESCE({', '.join(f'{alias}.{_quoted(name)}' for alias in aliases)})"
            case q.Literal(value=value):
                return _oracle_literal(value)
            case q.Binary(op=op, left=left, right=right):
                return f"({self.value(left)} {op} {self.value(right)})"
            case q.Quotient(left=left, right=right):
                # What is left after the remainder divides exactly: no rounding, also beyond 2**53.
                return f"(({self.value(left)} - ({self.value(left)} % {self.value(right)})) // {self.value(right)})"
            case q.Negative(value=value):
                return f"(-({self.value(value)}))"
            case q.Call(name=name, args=args):
                return _ORACLE_CALLS[name](*(self.value(arg) for arg in args))
            case q.Case(whens=whens, default=default):
                branches = " ".join(f"WHEN {self.condition(when)} THEN {self.value(then)}" for when, then in whens)
                return f"CASE {branches} ELSE {self.value(default) if default else 'NULL'} END"
            case q.Cast(value=value, type=name):
                return f"CAST({self.value(value)} AS {_ORACLE_TYPES[name]})"
            case q.Aggregate(name=name, arg=arg, distinct=distinct, only=only):
                text = f"{name}({'DISTINCT ' if distinct else ''}{'*' if arg is None else self.value(arg)})"
                return f"{text} FILTER (WHERE {self.condition(only)})" if only else text
            case q.Window():
                return _window(node, self.value, " NULLS LAST")
            case q.Scalar(query=query):
                return f"({self.query(query)})"
            case q.Distance(one=one, two=two):
                return f"sky_distance({', '.join(self.value(v) for v in (*one, *two))})"
            case q.Inside():
                return f"CAST({self.inside(node)} AS INTEGER)"
        raise TypeError(node)

    def inside(self, node: q.Inside) -> str:
        lon, lat = (self.value(v) for v in node.at)
        if isinstance(node.region, q.Circle):
            center = (node.region.lon, node.region.lat)
            return self.within(q.Within(node.at, center, "<=", node.region.radius))
        number = self.regions.setdefault(node.region, len(self.regions))
        return f"sky_inside({lon}, {lat}, {number})"

    def within(self, node: q.Within) -> str:
        points = ", ".join(f"CAST({self.value(v)} AS DOUBLE)" for v in (*node.one, *node.two))
        radius = self.value(node.radius) if isinstance(node.radius, q.Node) else _oracle_literal(node.radius)
        return f"sky_compare({points}, CAST({radius} AS DOUBLE), '{node.op}')"

    def condition(self, node: q.Node) -> str:
        match node:
            case q.And(items=items):
                return "(" + " AND ".join(self.condition(item) for item in items) + ")"
            case q.Or(items=items):
                return "(" + " OR ".join(self.condition(item) for item in items) + ")"
            case q.Not(item=item):
                return f"(NOT {self.condition(item)})"
            case q.Inside():
                return f"(NOT {self.inside(node)})" if node.is_negated else self.inside(node)
            case q.Within():
                return self.within(node)
            case q.Compare(op=op, left=left, right=right):
                return f"({self.value(left)} {op} {self.value(right)})"
            case q.Like(value=value, pattern=pattern, negated=negated, ignore_case=ignore):
                text = f"{self.value(value)} {'ILIKE' if ignore else 'LIKE'} {_oracle_literal(pattern)}"
                return f"(NOT ({text}))" if negated else f"({text})"
        return f"({_common_condition(node, self.value, self.query)})"


_ORACLE_CALLS: dict[str, Callable[..., str]] = {
    "ABS": lambda x: f"abs({x})",
    "FLOOR": lambda x: f"floor(CAST({x} AS DOUBLE))",
    "CEILING": lambda x: f"ceil(CAST({x} AS DOUBLE))",
    "ROUND": lambda x: f"round(CAST({x} AS DOUBLE))",
    "TRUNCATE": lambda x: f"trunc(CAST({x} AS DOUBLE))",
    "MOD": lambda x, y: f"({x} % {y})",
    "SQRT": lambda x: f"sqrt({x})",
    "LOG": lambda x: f"ln({x})",
    "LOG10": lambda x: f"log10({x})",
    "EXP": lambda x: f"exp({x})",
    "POWER": lambda x, y: f"pow({x}, {y})",
    "SIN": lambda x: f"sin({x})",
    "RADIANS": lambda x: f"radians({x})",
    "UPPER": lambda x: f"upper({x})",
    "LOWER": lambda x: f"lower({x})",
    "COALESCE": lambda *x: f"coalesce({', '.join(x)})",
    "RANK": lambda: "rank()",
    "DENSE_RANK": lambda: "dense_rank()",
    "ROW_NUMBER": lambda: "row_number()",
}

_ORACLE_TYPES = {"INTEGER": "INTEGER", "BIGINT": "BIGINT", "DOUBLE PRECISION": "DOUBLE", "VARCHAR": "VARCHAR", "REAL": "FLOAT"}


def _common_condition(node: q.Node, value: Callable[[q.Node], str], query: Callable[[q.Node], str]) -> str:
    """The predicates that both languages write alike."""
    match node:
        case q.Between(value=what, low=low, high=high, negated=negated):
            return f"{value(what)} {'NOT ' if negated else ''}BETWEEN {value(low)} AND {value(high)}"
        case q.InList(value=what, items=items, negated=negated):
            return f"{value(what)} {'NOT ' if negated else ''}IN ({', '.join(value(item) for item in items)})"
        case q.IsNull(value=what, negated=negated):
            return f"{value(what)} IS {'NOT ' if negated else ''}NULL"
        case q.InQuery(value=what, query=inner, negated=negated):
            return f"{value(what)} {'NOT ' if negated else ''}IN ({query(inner)})"
        case q.Exists(query=inner, negated=negated):
            return f"{'NOT ' if negated else ''}EXISTS ({query(inner)})"
    raise TypeError(node)


def _groups(node: q.Select, value: Callable[[q.Node], str]) -> str:
    keys = ", ".join(value(key) for key in node.group)
    match node.sets:
        case "":
            return keys
        case "SETS":
            return f"GROUPING SETS ({', '.join(f'({value(key)})' for key in node.group)}, ())"
    return f"{node.sets} ({keys})"


def _window(node: q.Window, value: Callable[[q.Node], str], nulls: str) -> str:
    parts = []
    if node.partition:
        parts.append("PARTITION BY " + ", ".join(value(key) for key in node.partition))
    if node.order:
        parts.append("ORDER BY " + ", ".join(f"{value(key)}{' DESC' if is_down else ''}{nulls}" for key, is_down in node.order))
    return f"{value(node.call)} OVER ({' '.join(parts)})"


def _mirror(op: str) -> str:
    return {"<": ">", "<=": ">=", ">": "<", ">=": "<="}[op]


def _quoted(name: str) -> str:
    return f'"{name}"'


def _adql_literal(value: float | str | datetime | None) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, datetime):
        return f"CAST('{value.isoformat()}' AS TIMESTAMP)"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return repr(value)


def _oracle_literal(value: float | str | datetime | None) -> str:
    """Floats as DOUBLE (an exponent forces it), never DECIMAL."""
    if isinstance(value, float):
        text = repr(value)
        text = text if "e" in text else text + "e0"
        return f"({text})" if value < 0 else text
    if isinstance(value, int):
        return f"({value})" if value < 0 else str(value)
    return _adql_literal(value)
