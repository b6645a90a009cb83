"""The shape of the tree: node classes and clauses that a profile allows.

Every node must be of a class listed here and may fill only the arguments listed for it; whatever sqlglot can parse beyond that
is refused with the position of the node. In strict ADQL the grammar's own distinction of predicates and values holds as well,
and calls must name a function of ADQL with a right number of arguments. For the other profiles the use of each extension is
recorded, and types decide at bind.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from sqlglot import exp

from qengine.errors import QuerySyntaxError
from qengine.sql.crossmatch import is_crossmatch
from qengine.sql.functions import FUNCTIONS, Role, known_names
from qengine.sql.language import Language
from qengine.sql.spans import Places, nearest
from qengine.sql.words import RESERVED

MAX_TREE_DEPTH = 1_000

_BINARY = ("this", "expression")
_BINARY_LIST = ("this", "expressions")
_ALLOWED: dict[type[exp.Expr], tuple[str, ...]] = {
    exp.Select: (
        "expressions", "distinct", "limit", "from_", "joins", "where", "group", "having", "order", "offset", "with_", "qualify",
    ),
    exp.Union: (*_BINARY, "distinct", "order", "offset", "limit", "with_"),
    exp.Intersect: (*_BINARY, "distinct", "order", "offset", "limit", "with_"),
    exp.Except: (*_BINARY, "distinct", "order", "offset", "limit", "with_"),
    exp.Subquery: ("this", "alias", "order", "offset", "limit", "with_"),
    exp.With: ("expressions", "recursive"),
    exp.CTE: ("this", "alias"),
    exp.From: ("this",),
    exp.Join: ("this", "method", "side", "kind", "on", "using"),
    exp.Table: ("this", "db", "catalog", "alias", "joins", "when"), exp.HistoricalData: ("this", "kind", "expression"),
    exp.Lateral: ("this", "alias"),
    exp.Unnest: ("expressions", "alias"),
    exp.Values: ("expressions", "alias"), exp.Tuple: ("expressions",),
    exp.TableAlias: ("this", "columns"),
    exp.Where: ("this",), exp.Having: ("this",), exp.Qualify: ("this",),
    exp.Group: ("expressions", "grouping_sets", "rollup", "cube"),
    exp.GroupingSets: ("expressions",), exp.Rollup: ("expressions",), exp.Cube: ("expressions",),
    exp.Order: ("this", "expressions"), exp.Ordered: ("this", "desc", "nulls_first"),
    exp.Limit: ("expression",), exp.Offset: ("expression",), exp.Distinct: ("expressions", "on"),
    exp.Alias: ("this", "alias"), exp.Column: ("this", "table", "db", "catalog"), exp.Identifier: ("this", "quoted"),
    exp.Dot: _BINARY, exp.Star: (),
    exp.Literal: ("this", "is_string"), exp.Null: (), exp.Boolean: ("this",), exp.Paren: ("this",),
    exp.Anonymous: ("this", "expressions"), exp.Cast: ("this", "to"), exp.Var: ("this", "integers"), exp.Neg: ("this",),
    exp.Add: _BINARY, exp.Sub: _BINARY, exp.Mul: _BINARY, exp.Div: (*_BINARY, "typed", "safe"), exp.DPipe: (*_BINARY, "safe"),
    exp.Mod: _BINARY, exp.IntDiv: _BINARY,
    exp.EQ: _BINARY, exp.NEQ: _BINARY, exp.LT: _BINARY, exp.LTE: _BINARY, exp.GT: _BINARY, exp.GTE: _BINARY,
    exp.NullSafeEQ: _BINARY, exp.NullSafeNEQ: _BINARY,
    exp.And: _BINARY, exp.Or: _BINARY, exp.Not: ("this",), exp.Xor: _BINARY,
    exp.BitwiseAnd: _BINARY, exp.BitwiseOr: _BINARY, exp.BitwiseXor: _BINARY, exp.BitwiseNot: ("this",),
    exp.BitwiseLeftShift: _BINARY, exp.BitwiseRightShift: _BINARY, exp.Bracket: _BINARY_LIST, exp.Slice: _BINARY,
    exp.Array: ("expressions", "bracket_notation"), exp.RegexpLike: _BINARY,
    exp.Between: ("this", "low", "high", "symmetric"), exp.In: ("this", "expressions", "query"),
    exp.Is: _BINARY, exp.Exists: ("this",),
    exp.Like: (*_BINARY, "negate"), exp.ILike: (*_BINARY, "negate"), exp.Escape: _BINARY,
    exp.Case: ("this", "ifs", "default"), exp.If: ("this", "true"),
    exp.Window: ("this", "partition_by", "order", "spec", "over"), exp.Filter: _BINARY, exp.WithinGroup: _BINARY,
    exp.WindowSpec: ("kind", "start", "start_side", "end", "end_side", "exclude"),
}  # fmt: skip

_EXTENSIONS: dict[type[exp.Expr], str] = {
    exp.Case: "CASE", exp.Window: "window functions", exp.Qualify: "QUALIFY", exp.Filter: "FILTER", exp.Escape: "LIKE .. ESCAPE",
    exp.NullSafeEQ: "<=> and IS NOT DISTINCT FROM", exp.NullSafeNEQ: "IS DISTINCT FROM", exp.Mod: "%", exp.IntDiv: "DIV",
    exp.Boolean: "TRUE and FALSE", exp.Lateral: "LATERAL", exp.Unnest: "UNNEST in FROM", exp.Values: "VALUES", exp.Xor: "XOR",
    exp.BitwiseAnd: "the bit operator &", exp.BitwiseOr: "the bit operator |", exp.BitwiseNot: "the bit operator ~",
    exp.BitwiseXor: "the operator ^", exp.BitwiseLeftShift: "the bit operator <<", exp.BitwiseRightShift: "the bit operator >>",
    exp.Bracket: "members of lists", exp.Array: "lists in brackets", exp.RegexpLike: "REGEXP", exp.GroupingSets: "GROUPING SETS",
    exp.Rollup: "ROLLUP", exp.Cube: "CUBE", exp.Dot: "fields of structures", exp.WithinGroup: "WITHIN GROUP",
    exp.HistoricalData: "AT (VERSION => n)",
}  # fmt: skip

PREDICATES = (
    exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE, exp.And, exp.Or, exp.Not, exp.Between, exp.In, exp.Is, exp.Exists,
    exp.Like, exp.ILike, exp.Escape, exp.NullSafeEQ, exp.NullSafeNEQ, exp.Xor, exp.RegexpLike,
)  # fmt: skip

_CONDITIONS = (exp.Where, exp.Having, exp.Qualify, exp.And, exp.Or, exp.Not)


_HOLD_TUPLES = (exp.In, exp.Tuple, exp.Values, exp.Distinct, exp.GroupingSets, exp.Rollup, exp.Cube)
_RECURSION = "each step would be a query over all tiles: write the steps as queries of their own"


def check_shape(tree: exp.Query, text: str, language: Language) -> tuple[str, ...]:
    """Raise `QuerySyntaxError` where the tree goes beyond the profile; return the extensions of ADQL that it uses."""
    return _Check(text, language).run(tree)


class _Check:
    def __init__(self, text: str, language: Language) -> None:
        self.text = text
        self.language = language
        self.found: list[str] = []

    def run(self, tree: exp.Query) -> tuple[str, ...]:
        for node in _nodes(tree):
            allowed = _ALLOWED.get(type(node))
            if allowed is None:
                raise self.error(node, f"{type(node).__name__} is not part of the language")
            for key, value in node.args.items():
                if key not in allowed and value not in (None, False, []):
                    raise self.error(
                        node, f"this form of {type(node).__name__.upper()} is not part of the language ({key.rstrip('_')})"
                    )
            self.extensions(node)
            self.rules(node)
            if self.language.is_strict:
                self.strict_rules(node, tree)
        return tuple(dict.fromkeys(self.found))

    def extensions(self, node: exp.Expr) -> None:
        if name := _EXTENSIONS.get(type(node)):
            self.extension(node, name)
        if isinstance(node, exp.Order) and node.this is not None:
            self.extension(node, "ORDER BY inside a function")
        if isinstance(node, exp.Limit) and not node.meta.get("top"):
            self.extension(node, "LIMIT")
        if isinstance(node, exp.Join) and node.args.get("kind") == "CROSS":
            self.extension(node, "CROSS JOIN")
        if isinstance(node, exp.Ordered) and node.args.get("nulls_first"):
            self.extension(node, "NULLS FIRST")
        if isinstance(node, exp.Is) and isinstance(node.expression, exp.Boolean):
            self.extension(node, "IS TRUE and IS FALSE")
        if isinstance(node, exp.Distinct) and node.args.get("on") is not None:
            self.extension(node, "DISTINCT ON")
        if isinstance(node, exp.Between) and node.args.get("symmetric") is not None:
            self.extension(node, "BETWEEN SYMMETRIC")
        if isinstance(node, exp.Literal) and not node.is_string and self.text[node.meta.get("start", 0) :][:2].lower() == "0x":
            self.extension(node, "hexadecimal numbers")
        if isinstance(node, exp.Tuple) and isinstance(node.parent, exp.In) and node.arg_key == "this":
            self.extension(node, "rows in IN")
        if isinstance(node, exp.Join) and node.args.get("method") == "ASOF":
            self.extension(node, "ASOF JOIN")
        if isinstance(node, exp.Join) and node.args.get("kind") in ("SEMI", "ANTI"):
            self.extension(node, f"{node.args['kind']} JOIN")
        if isinstance(node, exp.Identifier) and not node.args.get("quoted"):
            name = node.name
            if name.upper() in RESERVED and self.language.is_strict:
                message = f"{name} is a reserved word of ADQL"
                raise self.error(node, message, f"write \"{name}\" in double quotes; the profile 'adql' takes it without")
            if name.upper() in RESERVED:
                self.extension(node, f'the reserved word {name} as a name (write "{name}")')
            elif not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
                self.extension(node, f'the name {name} without double quotes (write "{name}")')

    def rules(self, node: exp.Expr) -> None:
        match node:
            case exp.Identifier() if node.args.get("quoted") and self.text[node.meta.get("start", 0) :][:1] == "'":
                raise self.error(node, "a string cannot be a name", 'delimit names with double quotes: "a name"')
            case exp.Identifier() if not node.name or "\0" in node.name:
                raise self.error(node, "a name cannot be empty")
            case exp.Select() if not node.expressions:
                raise self.error(node, "SELECT needs at least one column")
            case exp.Select() if node.args.get("from_") is None:
                raise self.error(node, "SELECT needs FROM and a table", "TAP_SCHEMA.tables lists the tables")
            case exp.With() if node.args.get("recursive"):
                raise self.error(node, "WITH RECURSIVE is not supported", _RECURSION)
            case exp.Table() if is_crossmatch(node) and not self.language.is_strict:
                self.extension(node, "the table function CROSSMATCH")
            case exp.Table() if not isinstance(node.this, exp.Identifier):
                raise self.error(node, "FROM takes tables and sub-queries, not functions", _table_hint(node))
            case exp.Join():
                self.join(node)
            case exp.Subquery() if isinstance(node.parent, (exp.From, exp.Join)) and isinstance(node.this, exp.Query):
                if not node.alias:
                    raise self.error(node, "a sub-query in FROM needs a name", "write (SELECT ..) AS name")
            case exp.Values() if not isinstance(node.parent, (exp.From, exp.Join)):
                raise self.error(node, "VALUES stands in FROM", "write SELECT .. FROM (VALUES (1, 2), (3, 4)) AS v(a, b)")
            case exp.Values() | exp.Unnest() | exp.Lateral() if not node.alias and not isinstance(node.parent, exp.Lateral):
                raise self.error(node, f"{type(node).__name__.upper()} in FROM needs a name", "write .. AS name(column)")
            case exp.Lateral() if not isinstance(node.this, exp.Unnest) and not (
                isinstance(node.this, exp.Subquery) and isinstance(node.this.this, exp.Query)
            ):
                raise self.error(node, "LATERAL is followed by a sub-query or UNNEST", "write LATERAL (SELECT ..) AS name")
            case exp.Tuple() if node.expressions and not isinstance(node.parent, _HOLD_TUPLES):
                raise self.error(node, "a list in parentheses is not a value", _tuple_hint(node))
            case exp.Subquery() if not isinstance(node.this, (exp.Query, exp.Table)):
                raise self.error(node, "this is not a sub-query")
            case exp.Is() if not isinstance(node.expression, (exp.Null, exp.Boolean)):
                raise self.error(node, "IS is followed by NULL or NOT NULL")
            case exp.TableAlias() if node.columns and isinstance(node.parent, exp.Table):
                raise self.error(node, "a list of column names after a table is not supported")
            case exp.Order() if node.this is not None and not isinstance(node.parent, exp.Anonymous):
                raise self.error(node, "ORDER BY cannot stand here")
            case exp.Escape() if not isinstance(node.this, (exp.Like, exp.ILike)):
                raise self.error(node, "ESCAPE belongs to LIKE")

    def join(self, node: exp.Join) -> None:
        kind, side, method = (str(node.args.get(key) or "") for key in ("kind", "side", "method"))
        if (
            kind not in ("", "INNER", "OUTER", "CROSS", "SEMI", "ANTI")
            or side not in ("", "LEFT", "RIGHT", "FULL")
            or method not in ("", "NATURAL", "ASOF")
            or (method == "ASOF" and side not in ("", "LEFT"))
            or (kind in ("SEMI", "ANTI") and (method or side not in ("", "LEFT")))
        ):
            raise self.error(node, f"{' '.join(filter(None, (method, side, kind)))} JOIN is not supported")
        condition = node.args.get("on") is not None or bool(node.args.get("using"))
        if isinstance(node.this, (exp.Unnest, exp.Lateral)) and not condition and not (kind or side or method):
            return
        if kind == "CROSS" or node.meta.get("comma"):
            if condition or side or method:
                raise self.error(node, "a product of tables takes no condition", "write JOIN .. ON ..")
        elif (method == "NATURAL") == condition:
            raise self.error(node, "JOIN needs one of NATURAL, ON or USING", "write JOIN table ON a.x = b.x")
        elif kind == "OUTER" and not side:
            raise self.error(node, "OUTER JOIN needs LEFT, RIGHT or FULL")

    # -- strict ADQL ------------------------------------------------------------------------------------------------------------

    def strict_rules(self, node: exp.Expr, tree: exp.Query) -> None:
        match node:
            case exp.With() if node.parent is not tree:
                raise self.error(node, "WITH may stand only at the start of the statement")
            case exp.CTE() if node.args["alias"].args.get("columns"):
                raise self.error(node, "a list of column names after WITH is not ADQL")
            case exp.Table() if node.args.get("catalog") is not None and isinstance(node.args["catalog"], exp.Dot):
                raise self.error(node, "the name of a table has at most three parts")
            case exp.Anonymous():
                self.strict_call(node)
            case exp.TableAlias() if node.columns:
                raise self.error(node, "a list of column names after an alias is not ADQL")
            case exp.Window() | exp.Case():
                raise self.error(node, f"{_EXTENSIONS[type(node)]} is not ADQL 2.1", "the profile 'adql' takes it")
        for child in _condition_operands(node):
            if not _is_predicate(child):
                raise self.error(child, "a condition is expected here, not a value", _condition_hint(child))
        for child in _value_operands(node):
            if _is_predicate(child):
                raise self.error(child, "a value is expected here, not a condition")

    def strict_call(self, node: exp.Anonymous) -> None:
        name = node.name.upper()
        function = FUNCTIONS.get(name)
        if function is not None and function.is_extension and not isinstance(node.this, exp.Identifier):
            raise self.error(node, f"{function.name} is not a function of ADQL 2.1", "the profile 'adql' takes it")
        if isinstance(node.this, exp.Identifier) or function is None or function.is_extension:
            hint = nearest(name, known_names(extensions=False)) or "the list of functions is in the documentation"
            raise self.error(node, f"there is no function {node.name} in ADQL", hint)
        if function.role is not Role.GEOMETRY and not function.takes(len(node.expressions)):
            raise self.error(node, f"{name} takes {function.arity} arguments, not {len(node.expressions)}")

    # -- reporting --------------------------------------------------------------------------------------------------------------

    def extension(self, node: exp.Expr, name: str) -> None:
        if self.language.is_strict:
            raise self.error(node, f"{name} is not ADQL 2.1", "the profile 'adql' takes it")
        self.found.append(name)

    def error(self, node: exp.Expr, message: str, hint: str = "") -> QuerySyntaxError:
        span = Places(node.root(), self.text).around(node)
        return QuerySyntaxError(message, span=span, hint=hint)


def _nodes(tree: exp.Expr) -> Iterator[exp.Expr]:
    stack: list[tuple[exp.Expr, int]] = [(tree, 0)]
    while stack:
        node, depth = stack.pop()
        if depth > MAX_TREE_DEPTH:
            raise QuerySyntaxError("the statement is nested too deeply", hint="long lists of alternatives go into IN (..)")
        yield node
        for child in reversed(list(node.iter_expressions())):
            # AND, OR and set operations are lists in the shape of a chain: they do not count as depth
            is_link = type(child) is type(node) and isinstance(node, (exp.And, exp.Or))
            stack.append((child, depth if is_link else depth + 1))


def _is_predicate(node: exp.Expr) -> bool:
    return isinstance(node.unnest(), PREDICATES)


def _condition_operands(node: exp.Expr) -> list[exp.Expr]:
    if isinstance(node, (exp.And, exp.Or)):
        return [node.this, node.expression]
    if isinstance(node, _CONDITIONS):
        return [node.this]
    if isinstance(node, exp.Join) and node.args.get("on") is not None:
        return [node.args["on"]]
    return []


def _value_operands(node: exp.Expr) -> list[exp.Expr]:
    if isinstance(node, (exp.Select, exp.Group)):
        return [item.this if isinstance(item, exp.Alias) else item for item in node.expressions]
    if isinstance(node, (exp.Anonymous, exp.In, exp.Distinct)):
        return [*node.expressions, *([node.this] if isinstance(node, exp.In) else [])]
    if isinstance(node, (exp.Ordered, exp.Cast, exp.Neg, exp.Is)):
        return [node.this]
    if isinstance(node, exp.Between):
        return [node.this, node.args["low"], node.args["high"]]
    if isinstance(node, exp.Binary) and not isinstance(node, (exp.Connector, exp.Dot, exp.Escape)):
        return [node.this, node.expression]
    return []


def _table_hint(node: exp.Table) -> str:
    if isinstance(node.this, exp.Dot):
        return "the name of a table has two parts: catalogue.table"
    if isinstance(node.this, exp.Literal) and node.this.is_string:
        return 'a name is not in single quotes: "a name"'
    return "files and table functions cannot be read from a statement: tables are listed in TAP_SCHEMA.tables"


def _tuple_hint(node: exp.Tuple) -> str:
    if isinstance(node.parent, (exp.Select, exp.Alias)):
        return "write the columns of SELECT without parentheses"
    if isinstance(node.parent, exp.Group):
        return "write the keys of GROUP BY without parentheses"
    return "rows are compared with IN: (a, b) IN ((1, 2), (3, 4))"


def _condition_hint(node: exp.Expr) -> str:
    inner = node.unnest()
    if isinstance(inner, exp.Anonymous) and inner.name.upper() in ("CONTAINS", "INTERSECTS"):
        return f"compare it: {inner.name}(..) = 1"
    return ""
