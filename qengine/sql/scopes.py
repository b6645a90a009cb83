"""Names that a query block sees: the items of its FROM, columns merged by NATURAL and USING, CTEs, and the blocks around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from sqlglot import exp

from qengine.catalog.model import Catalog, Column, Table
from qengine.catalog.output import OutputColumn
from qengine.errors import QueryError, UnknownNameError
from qengine.sql.language import Language
from qengine.sql.nodes import about, column, typed
from qengine.sql.spans import Places, nearest


@dataclass(slots=True)
class Context:
    """One statement being bound: what it reads, what it warns of, and which aliases are taken. Tables without a catalogue are
    looked for in `schema` first; `within` are the views and virtual columns whose definition is being bound."""

    places: Places
    language: Language
    catalog: Catalog
    warnings: list[str] = field(default_factory=list)
    tables: dict[tuple[str, str], None] = field(default_factory=dict)
    schema: str = ""
    within: tuple[str, ...] = ()
    _aliases: set[str] = field(default_factory=set)
    _ctes: set[str] = field(default_factory=set)

    def error(self, kind: type[QueryError], node: exp.Expr, message: str, hint: str = "") -> QueryError:
        """Return an error at the place of the parsed `node`, or of the nearest node around it that has one."""
        return kind(message, span=self.places.around(node), hint=hint)

    def warn(self, message: str) -> None:
        if message not in self.warnings:
            self.warnings.append(message)

    def extension(self, name: str) -> None:
        """Note the use of something beyond ADQL 2.1 where the profile asks for it."""
        if self.language.needs_warning:
            self.warn(f"not ADQL 2.1: {name}")

    def new_alias(self, wanted: str) -> str:
        """Return `wanted`, or it with a number behind, so that it is unique in the statement without regard to case."""
        return _unique(wanted, self._aliases)

    def new_cte(self, wanted: str) -> str:
        return _unique(wanted, self._ctes)


def _unique(wanted: str, taken: set[str]) -> str:
    name, number = wanted, 1
    while name.lower() in taken:
        number += 1
        name = f"{wanted}_{number}"
    taken.add(name.lower())
    return name


def matches(identifier: exp.Identifier, name: str) -> bool:
    """Say whether a name as written means `name`: exactly if delimited, else without regard to case."""
    if identifier.args.get("quoted"):
        return str(identifier.this) == name
    return str(identifier.this).lower() == name.lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One item of FROM. `name` is what the statement calls it, `alias` its unique name in the bound tree. An item of a nested
    join keeps its former alias as `key` and maps its column names to those behind the shared alias in `stored`. `table` is the
    base table that it is, `expand` makes the expression of one of its virtual columns."""

    name: str
    alias: str
    columns: Sequence[Column | OutputColumn]
    schema: str = ""
    is_aliased: bool = False
    key: str = ""
    stored: Mapping[str, str] = field(default_factory=dict)
    table: Table | None = None
    expand: Callable[[Source, Column], exp.Expr] | None = None

    def visible(self) -> tuple[Column | OutputColumn, ...]:
        """The columns of `*`, in order: those with an index first, then as declared; hidden ones left out."""
        shown = [c for c in self.columns if not (isinstance(c, Column) and c.hidden)]
        indexed = [c for c in shown if isinstance(c, Column) and c.column_index is not None]
        indexed.sort(key=lambda c: c.column_index if isinstance(c, Column) and c.column_index is not None else 0)
        rest = [c for c in shown if not (isinstance(c, Column) and c.column_index is not None)]
        return (*indexed, *rest)

    def find(self, identifier: exp.Identifier) -> list[Column | OutputColumn]:
        return [c for c in self.columns if matches(identifier, c.name)]

    def reference(self, found: Column | OutputColumn) -> exp.Expr:
        """Return the bound node of one of its columns, the expression of a virtual one."""
        if isinstance(found, Column) and found.expression and self.expand is not None:
            return self.expand(self, found)
        node = about(typed(column(self.alias, self.stored.get(found.name, found.name)), found.type), found)
        if self.table is not None:
            node.meta["origin"] = (self.table.schema, self.table.name, found.name)
        return node

    def answers_to(self, parts: Sequence[exp.Identifier]) -> bool:
        """Say whether `parts` (table, schema, ...: innermost first) name this item."""
        if not matches(parts[0], self.name):
            return False
        if len(parts) == 1:
            return True
        return len(parts) == 2 and not self.is_aliased and bool(self.schema) and matches(parts[1], self.schema)


@dataclass(frozen=True, slots=True)
class Cte:
    """A WITH item: its unique name and its columns."""

    name: str
    columns: tuple[OutputColumn, ...]


@dataclass(frozen=True, slots=True)
class Merged:
    """A column merged by NATURAL or USING: its name, its expression, the (item, column) pairs that it stands for, and the item
    of FROM before which `*` shows it."""

    name: str
    expression: exp.Expr
    hides: frozenset[tuple[str, str]]
    before: str


@dataclass(slots=True)
class Scope:
    """What one block sees. `outputs` are its own select items, for clauses that may name them;
    `later_outputs` are the names of those that the clause may not use."""

    context: Context
    parent: Scope | None = None
    sources: list[Source] = field(default_factory=list)
    merged: list[Merged] = field(default_factory=list)
    ctes: dict[str, Cte] = field(default_factory=dict)
    outputs: list[tuple[str, exp.Expr]] = field(default_factory=list)
    later_outputs: list[str] = field(default_factory=list)
    uses_outputs: list[str] = field(default_factory=list)
    is_correlated: bool = False

    def find_cte(self, identifier: exp.Identifier) -> Cte | None:
        scope: Scope | None = self
        while scope is not None:
            for name, cte in scope.ctes.items():
                if matches(identifier, name):
                    return cte
            scope = scope.parent
        return None

    def aliases(self) -> frozenset[str]:
        return frozenset(source.alias for source in self.sources)

    # -- columns ----------------------------------------------------------------------------------------------------------------

    def resolve(self, node: exp.Column) -> exp.Expr:
        """Return the bound node for a parsed column name; raise `UnknownNameError` with suggestions."""
        parts = [part for key in ("table", "db", "catalog") if (part := node.args.get(key)) is not None]
        scope: Scope | None = self
        while scope is not None:
            found = scope._qualified(node, parts) if parts else scope._unqualified(node)
            if found is not None:
                if scope is not self:
                    self._mark_correlated(scope)
                return found
            scope = scope.parent
        raise self._unknown(node, parts)

    def resolve_path(self, node: exp.Column) -> tuple[exp.Expr, list[exp.Identifier]]:
        """Return the bound node of a parsed name, and the part behind it that names fields of a structure (mostly none).

        `a.b` is column b of item a; if there is no such item, field b of column a.
        """
        parts = [part for key in ("catalog", "db", "table") if (part := node.args.get(key)) is not None]
        if not parts or any(self._has_item(parts[: count + 1]) for count in range(min(2, len(parts)))):
            whole = [*parts, node.this]
            for count in range(1, len(parts)):
                if self._has_item(whole[:count]) and not self._has_item(whole[: count + 1]):
                    return self.resolve(_named(node, whole[: count + 1])), whole[count + 1 :]
            return self.resolve(node), []
        if self._has_column(parts[0]):
            return self.resolve(_named(node, parts[:1])), [*parts[1:], node.this]
        return self.resolve(node), []

    def _has_item(self, outermost_first: Sequence[exp.Identifier]) -> bool:
        names = list(reversed(outermost_first))
        return any(source.answers_to(names) for scope in self._outward() for source in scope.sources)

    def _has_column(self, name: exp.Identifier) -> bool:
        return any(source.find(name) for scope in self._outward() for source in scope.sources)

    def _mark_correlated(self, until: Scope) -> None:
        scope: Scope | None = self
        while scope is not None and scope is not until:
            scope.is_correlated = True
            scope = scope.parent

    def _qualified(self, node: exp.Column, parts: Sequence[exp.Identifier]) -> exp.Expr | None:
        named = [source for source in self.sources if source.answers_to(parts)]
        if len(named) > 1:
            raise self.context.error(UnknownNameError, node, f"{parts[0].name} is ambiguous", "give the tables different aliases")
        if not named:
            return None
        found = _one(named[0].find(node.this), node.this)
        if found is None:
            hint = nearest(node.name, (c.name for c in named[0].columns))
            raise self.context.error(UnknownNameError, node, f"{named[0].name} has no column {node.name}", hint)
        return named[0].reference(found)

    def _unqualified(self, node: exp.Column) -> exp.Expr | None:
        for merged in reversed(self.merged):
            if matches(node.this, merged.name):
                return merged.expression.copy()
        found = []
        for source in self.sources:
            item = _one(source.find(node.this), node.this)
            if item is not None:
                found.append((source, item))
        if len(found) > 1:
            names = " or ".join(f"{source.name}.{item.name}" for source, item in found)
            raise self.context.error(UnknownNameError, node, f"column {node.name} is ambiguous", f"write {names}")
        if found:
            return found[0][0].reference(found[0][1])
        for name, expression in self.outputs:
            if matches(node.this, name):
                self.uses_outputs.append(name)
                return expression.copy()
        return None

    def _unknown(self, node: exp.Column, parts: Sequence[exp.Identifier]) -> QueryError:
        scopes = list(self._outward())
        if parts:
            name = ".".join(part.name for part in reversed(parts))
            renamed = [
                s.name for scope in scopes for s in scope.sources if s.is_aliased and s.table and matches(parts[0], s.table.name)
            ]
            hint = f"it is called {renamed[0]} in this statement" if renamed else ""
            hint = hint or nearest(parts[0].name, (source.name for scope in scopes for source in scope.sources))
            return self.context.error(UnknownNameError, node, f"there is no table {name} in this FROM", hint)
        known = [c.name for scope in scopes for source in scope.sources for c in source.columns]
        hint = nearest(node.name, known)
        if node.this.args.get("quoted"):
            hint = f"a text is written in single quotes: '{node.name}'" + (f"; {hint}" if hint else "")
        elif any(matches(node.this, name) for name in self.later_outputs):
            hint = f"{node.name} names an output, which WHERE does not know: write its expression, or use a sub-query"
        return self.context.error(UnknownNameError, node, f"there is no column {node.name}", hint)

    def _outward(self) -> Iterator[Scope]:
        scope: Scope | None = self
        while scope is not None:
            yield scope
            scope = scope.parent

    # -- `*` --------------------------------------------------------------------------------------------------------------------

    def star(self) -> list[tuple[str, exp.Expr]]:
        """Return names and nodes of `*`: the items of FROM in order, merged columns before the items that they join."""
        hidden = {pair for merged in self.merged for pair in merged.hides}
        # a later merge of the same name replaces an earlier one
        last = {merged.name.lower(): merged for merged in self.merged}
        items: list[tuple[str, exp.Expr]] = []
        for source in self.sources:
            key = source.key or source.alias
            items += [(merged.name, merged.expression.copy()) for merged in last.values() if merged.before == key]
            items += [(c.name, source.reference(c)) for c in source.visible() if (key, c.name) not in hidden]
        return items

    def star_of(self, node: exp.Column) -> list[tuple[str, exp.Expr]]:
        """Return names and nodes of `name.*`."""
        parts = [part for key in ("table", "db", "catalog") if (part := node.args.get(key)) is not None]
        named = [source for source in self.sources if source.answers_to(parts)]
        if len(named) != 1:
            hint = nearest(parts[0].name, (source.name for source in self.sources))
            raise self.context.error(UnknownNameError, node, f"there is no table {parts[0].name} in this FROM", hint)
        return [(c.name, named[0].reference(c)) for c in named[0].visible()]


def _named(node: exp.Column, outermost_first: Sequence[exp.Identifier]) -> exp.Column:
    """Return a column of these parts that stands where `node` stands."""
    keys = ("this", "table", "db", "catalog")
    found = exp.Column()
    for key, part in zip(keys, reversed(outermost_first), strict=False):
        found.args[key] = part
    found.parent = node
    return found


def _one(found: list[Column | OutputColumn], identifier: exp.Identifier) -> Column | OutputColumn | None:
    """Of columns equal but for case, the one spelled as written wins; output names are unique anyway."""
    exact = [c for c in found if c.name == identifier.name]
    return exact[0] if exact else found[0] if found else None
