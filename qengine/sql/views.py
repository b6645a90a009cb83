"""Virtual columns and views: what a name in a statement stands for where the catalogue says that it is computed.

A virtual column is ADQL over the columns of its table, other virtual ones included. A statement that names it gets the bound
expression in its place, over the alias of the table: `WHERE g_mag < 20` becomes `WHERE CASE WHEN o.g_flux > 0 THEN .. END < 20`.
A view is a SELECT in ADQL; a statement that names it gets a derived table. So the bound tree is ordinary SQL, and whatever prunes
or proves locality sees through both.

They always mean what they mean in the profile `adql`, in whatever profile the statement is written. Names of tables without a
catalogue are looked for in the view's own catalogue first. Nothing may be defined by itself, whatever lies between.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from sqlglot import exp

from qengine.catalog.model import Column, Table
from qengine.catalog.output import OutputColumn
from qengine.errors import QEngineError, QueryError, UnsupportedQueryError
from qengine.sql.expressions import Clause, Expressions
from qengine.sql.functions import FUNCTIONS
from qengine.sql.language import language_of
from qengine.sql.nodes import about, paren
from qengine.sql.parse import parse
from qengine.sql.scopes import Context, Scope, Source
from qengine.sql.spans import Places

LANGUAGE = "adql"

_VOLATILE = frozenset({function.target for function in FUNCTIONS.values() if function.is_volatile})
_RANDOM = (exp.Rand, exp.Randn, exp.Uuid, exp.CurrentTimestamp)


class Binder(Protocol):
    """Binds queries and expressions of one context: `sql.blocks.Queries`."""

    def bind(self, tree: exp.Query, scope: Scope) -> tuple[exp.Query, tuple[OutputColumn, ...]]: ...

    def expressions(self, scope: Scope, clause: Clause) -> Expressions: ...


@dataclass(frozen=True, slots=True)
class Computed:
    """Expands views and virtual columns in the statement of `context`."""

    context: Context
    binder: Callable[[Context], Binder]

    def view(self, table: Table) -> tuple[exp.Query, tuple[OutputColumn, ...]]:
        """Return the bound query of a view, and its columns."""
        try:
            parsed = parse(table.view, LANGUAGE)
            own = self._within(table.full_name, Places(parsed.tree, parsed.text), table.schema)
            query, columns = self.binder(own).bind(parsed.tree, Scope(own))
        except QEngineError as error:
            raise _elsewhere(f"the view {table.full_name}", error) from error
        _forget_places(query)
        return query, columns

    def column(self, source: Source, found: Column) -> exp.Expr:
        """Return the bound expression of a virtual column of one item of FROM."""
        name = f"{source.schema}.{source.table.name if source.table else source.name}.{found.name}"
        try:
            # In parentheses on lines of their own, neither a second expression nor a comment can hide what follows.
            parsed = parse(f"SELECT (\n{found.expression}\n) FROM t", LANGUAGE)
            item = parsed.tree.expressions[0] if isinstance(parsed.tree, exp.Select) else None
            if len(parsed.tree.expressions) != 1 or not isinstance(item, exp.Paren) or any(True for _ in item.find_all(exp.Query)):
                raise UnsupportedQueryError("a virtual column is one expression without sub-queries")
            own = self._within(name, Places(parsed.tree, parsed.text), source.schema)
            scope = Scope(own, sources=[replace(source, expand=Computed(own, self.binder).column)])
            bound = self.binder(own).expressions(scope, Clause(name="a virtual column")).value(item)
            if any(_is_random(node) for node in bound.walk()):
                raise UnsupportedQueryError("a virtual column has one value per row: random functions and the time have many")
        except QEngineError as error:
            raise _elsewhere(f"the virtual column {name}", error) from error
        _forget_places(bound)
        bound = paren(bound)
        bound.meta["declared"] = found.name
        return about(bound, found)

    def _within(self, name: str, places: Places, schema: str) -> Context:
        """Return a context for the text of `name`: of its own language, warnings and places; aliases and tables are shared."""
        if name in self.context.within:
            chain = " -> ".join((*self.context.within[self.context.within.index(name) :], name))
            raise UnsupportedQueryError(f"it is defined by itself: {chain}")
        within = (*self.context.within, name)
        return replace(self.context, places=places, language=language_of(LANGUAGE), warnings=[], schema=schema, within=within)


def _is_random(node: exp.Expr) -> bool:
    return isinstance(node, _RANDOM) or (isinstance(node, exp.Anonymous) and str(node.this).lower() in _VOLATILE)


def _elsewhere(what: str, error: QEngineError) -> QEngineError:
    """Return an error of another text without its place, which would be looked for in the statement."""
    if isinstance(error, QueryError) and error.details.get("computed"):
        return error
    kind = type(error) if isinstance(error, QueryError) else UnsupportedQueryError
    return kind(f"{what}: {error.message}", hint=error.hint, details={"computed": what})


def _forget_places(tree: exp.Expr) -> None:
    for node in tree.walk():
        node.meta.pop("span", None)
