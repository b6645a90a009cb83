"""FROM: tables resolved against the catalogue, sub-queries, CTEs, joins of every kind.

NATURAL and USING become ON, with the merged column kept in the scope (`COALESCE` where both sides may be missing). A comma becomes
CROSS JOIN. A join in parentheses that is not the first item becomes a sub-query whose columns still answer to their own names.
LATERAL items see the items before them. SEMI and ANTI joins become terms of WHERE (`filters`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from sqlglot import exp

from qengine.catalog.model import Table, TableSnapshot
from qengine.catalog.output import OutputColumn
from qengine.catalog.types import BOOLEAN
from qengine.errors import QueryTypeError, UnknownNameError, UnsupportedQueryError
from qengine.sql.crossmatch import expand, is_crossmatch
from qengine.sql.expressions import Expressions
from qengine.sql.joins import check_asof, existence
from qengine.sql.made import unnest_query, values_query
from qengine.sql.nodes import call, column, quoted, type_of, typed
from qengine.sql.operators import as_term, balanced
from qengine.sql.scopes import Context, Merged, Scope, Source, matches
from qengine.sql.spans import nearest
from qengine.sql.views import Computed


@dataclass(slots=True)
class Relations:
    """Binds the FROM of one block into `scope`. `query` binds a sub-query; `expressions` makes a binder for ON; `computed` expands
    views and virtual columns."""

    scope: Scope
    query: Callable[[exp.Query, Scope], tuple[exp.Query, tuple[OutputColumn, ...]]]
    expressions: Callable[[Scope], Expressions]
    computed: Computed
    joins: list[exp.Join] = field(default_factory=list)
    filters: list[exp.Expr] = field(default_factory=list)
    before: list[Scope] = field(default_factory=list)

    @property
    def context(self) -> Context:
        return self.scope.context

    def bind(self, select: exp.Select) -> exp.Expr:
        """Return the first item; the others follow in `joins`, and the scope knows all of them."""
        groups: list[tuple[exp.Expr, list[exp.Join]]] = [(select.args["from_"].this, [])]
        for join in select.args.get("joins") or []:
            if join.meta.get("comma"):
                groups.append((join.this, []))
            else:
                groups[-1][1].append(join)
        # A comma binds weaker than JOIN: the one group whose outer join could drop a product's rows has to come first.
        turned = [group for group in groups if any(join.side in ("RIGHT", "FULL") for join in group[1])]
        if len(turned) > 1:
            message = "two RIGHT or FULL joins separated by a comma are not supported"
            raise self.context.error(UnsupportedQueryError, turned[1][0], message, "put one of them into a sub-query")
        ordered = [*turned, *(group for group in groups if group not in turned)]
        sources: dict[int, tuple[list[Source], list[Merged]]] = {}
        first: exp.Expr | None = None
        for group in ordered:
            inner = Scope(self.context, parent=self.scope)
            head, tail = self._group(group, inner, is_first=first is None)
            self.before.append(inner)
            if first is None:
                first = head
            else:
                self.joins.append(exp.Join(this=head, kind="CROSS"))
            self.joins += tail
            sources[id(group)] = (inner.sources, inner.merged)
        for group in groups:
            found, merged = sources[id(group)]
            self.scope.sources += found
            self.scope.merged += merged
        self._check_names(select)
        assert first is not None
        return first

    def _group(self, group: tuple[exp.Expr, list[exp.Join]], inner: Scope, *, is_first: bool) -> tuple[exp.Expr, list[exp.Join]]:
        item, joins = group
        nested = list(item.args.get("joins") or []) if isinstance(item, exp.Table) else []
        is_nested = isinstance(item, exp.Subquery) and isinstance(item.this, exp.Table)
        if is_nested and is_first and not item.alias:
            head, tail = self._group((item.this, []), inner, is_first=True)
        else:
            head, tail = self._item(item, inner, self._seen(None)), []
        filtered: exp.Join | None = None
        for join in [*nested, *joins]:
            if join.side in ("RIGHT", "FULL") and filtered is not None:
                hint = "put the first into a sub-query, or write EXISTS"
                message = f"a {join.side} JOIN after a {filtered.kind} JOIN is not supported"
                raise self.context.error(UnsupportedQueryError, join, message, hint)
            if join.kind in ("SEMI", "ANTI"):
                filtered = join
                self.filters.append(self._existence(join, inner))
            else:
                tail.append(self._join(join, inner))
        return head, tail

    # -- items ------------------------------------------------------------------------------------------------------------------

    def _item(self, item: exp.Expr, inner: Scope, seen: Scope) -> exp.Expr:
        """Bind one item of FROM. `seen` is what a LATERAL item sees."""
        if isinstance(item, exp.Table):
            return self._crossmatch(item, inner) if is_crossmatch(item) else self._table(item, inner)
        if isinstance(item, exp.Values):
            made, columns = values_query(self.expressions(self._outside()), item, self.context.new_alias(item.alias))
            return self._derived(item, made, columns, inner)
        if isinstance(item, (exp.Unnest, exp.Lateral)):
            return self._lateral(item, inner, seen)
        assert isinstance(item, exp.Subquery)
        if isinstance(item.this, exp.Table):
            return self._nested(item, inner)
        query, columns = self.query(item.this if not _has_modifiers(item) else _unaliased(item), self._outside())
        columns = _renamed(self.context, item, query, columns)
        return self._derived(item, query, columns, inner)

    def _lateral(self, item: exp.Unnest | exp.Lateral, inner: Scope, seen: Scope) -> exp.Expr:
        body = item.this if isinstance(item, exp.Lateral) else item
        query: exp.Query
        if isinstance(body, exp.Unnest):
            query, columns = unnest_query(self.expressions(seen), body, item.args["alias"])
        else:
            query, columns = self.query(_unaliased(body) if _has_modifiers(body) else body.this, seen)
            columns = _renamed(self.context, item, query, columns)
        derived = self._derived(item, query, columns, inner)
        alias = derived.args["alias"]
        derived.set("alias", None)
        return exp.Lateral(this=derived, alias=alias)

    def _seen(self, group: Scope | None) -> Scope:
        """What a LATERAL item sees: all items bound before it, and what a sub-query in FROM sees."""
        scopes = [*self.before, *([group] if group is not None else [])]
        seen = self._outside()
        seen.sources = [source for scope in scopes for source in scope.sources]
        seen.merged = [merged for scope in scopes for merged in scope.merged]
        return seen

    def _derived(self, item: exp.Expr, query: exp.Query, columns: tuple[OutputColumn, ...], inner: Scope) -> exp.Expr:
        alias = self.context.new_alias(item.alias)
        inner.sources.append(Source(name=item.alias, alias=alias, columns=columns, is_aliased=True))
        return exp.Subquery(this=query, alias=exp.TableAlias(this=quoted(alias)))

    def _crossmatch(self, item: exp.Table, inner: Scope) -> exp.Expr:
        written = expand(item, self.context, self._find)
        warned = len(self.context.warnings)
        query, columns = self.query(written.this, self._outside())
        # What the function is written in is none of the user's business; that names were changed is.
        self.context.warnings[warned:] = [w for w in self.context.warnings[warned:] if not w.startswith("not ADQL 2.1")]
        return self._derived(written, query, columns, inner)

    def _outside(self) -> Scope:
        """What a sub-query in FROM sees: the CTEs of this block and the blocks around it, not its neighbours."""
        return Scope(self.context, parent=self.scope.parent, ctes=self.scope.ctes)

    def _table(self, item: exp.Table, inner: Scope) -> exp.Expr:
        name, schema = item.this, item.args.get("db")
        span = self.context.places.span(item)
        wanted = item.alias or item.name
        if schema is None and (cte := self.scope.find_cte(name)) is not None:
            alias = self.context.new_alias(wanted)
            inner.sources.append(Source(name=wanted, alias=alias, columns=cte.columns, is_aliased=True))
            node = exp.Table(this=quoted(cte.name), alias=exp.TableAlias(this=quoted(alias)))
        else:
            table = self._find(item).table
            if not item.alias:
                wanted = table.name
            if table.view:
                return self._view(item, table, wanted, inner)
            alias = self.context.new_alias(wanted)
            source = Source(
                name=wanted, alias=alias, columns=table.shown, schema=table.schema, is_aliased=bool(item.alias), table=table,
                expand=self.computed.column,
            )  # fmt: skip
            inner.sources.append(source)
            self.context.tables[(table.schema, table.name)] = None
            node = exp.Table(this=quoted(table.name), db=quoted(table.schema), alias=exp.TableAlias(this=quoted(alias)))
        if span is not None:
            node.meta["span"] = span
        return node

    def _view(self, item: exp.Table, table: Table, wanted: str, inner: Scope) -> exp.Expr:
        query, columns = self.computed.view(table)
        alias = self.context.new_alias(wanted)
        inner.sources.append(
            Source(name=wanted, alias=alias, columns=columns, schema=table.schema, is_aliased=bool(item.alias))
        )  # fmt: skip
        return exp.Subquery(this=query, alias=exp.TableAlias(this=quoted(alias)))

    def _find(self, item: exp.Table) -> TableSnapshot:
        catalog, name, schema = self.context.catalog, item.this, item.args.get("db")
        if item.args.get("catalog") is not None:
            raise self._unknown(item, "names of tables have two parts: catalogue and table")
        if schema is None:
            if self.context.schema and (own := catalog.find(self.context.schema, item.name)) and matches(name, own.table.name):
                return own
            found = [t for t in catalog.find_unqualified(item.name) if matches(name, t.table.name)]
            if len(found) > 1:
                hint = "write " + " or ".join(t.table.full_name for t in found)
                raise self.context.error(UnknownNameError, item, f"table {item.name} is in several catalogues", hint)
            if found:
                return found[0]
        else:
            snapshot = catalog.find(item.db, item.name)
            if snapshot and matches(name, snapshot.table.name) and matches(schema, snapshot.table.schema):
                return snapshot
        raise self._unknown(item, "")

    def _unknown(self, item: exp.Table, hint: str) -> Exception:
        name = f"{item.db}.{item.name}" if item.db else item.name
        snapshots = list(self.context.catalog)
        schemas = list(dict.fromkeys(t.table.schema for t in snapshots))
        if item.db and not hint and not any(matches(item.args["db"], schema) for schema in schemas):
            same = [t.table.full_name for t in snapshots if matches(item.this, t.table.name)]
            hint = f"write {' or '.join(same)}" if same else nearest(item.db, schemas) or f"there are {', '.join(schemas[:8])}"
            return self.context.error(UnknownNameError, item, f"there is no catalogue {item.db} here", hint)
        known = [t.table.full_name for t in snapshots]
        known += [] if item.db else [t.table.name for t in snapshots]
        hint = hint or nearest(name, known) or "TAP_SCHEMA.tables lists the tables"
        return self.context.error(UnknownNameError, item, f"there is no table {name}", hint)

    def _nested(self, item: exp.Subquery, inner: Scope) -> exp.Expr:
        if item.alias:
            raise self.context.error(
                UnsupportedQueryError, item, "a join in parentheses takes no name", "write (SELECT ..) AS name"
            )
        own = Scope(self.context, parent=self._outside())
        nested = Relations(own, self.query, self.expressions, self.computed)
        nested.before = self.before
        head, tail = nested._group((item.this, []), own, is_first=True)
        alias = self.context.new_alias("joined")
        taken: set[str] = set()
        items: list[exp.Expr] = []

        def keep(name: str, node: exp.Expr) -> str:
            stored = _free(name, taken)
            items.append(typed(exp.Alias(this=node, alias=quoted(stored)), type_of(node)))
            return stored

        for source in own.sources:
            stored = {c.name: keep(c.name, source.reference(c)) for c in source.columns}
            inner.sources.append(Source(
                name=source.name, alias=alias, key=source.key or source.alias, columns=source.columns, schema=source.schema,
                is_aliased=source.is_aliased, stored=stored, table=source.table,
            ))  # fmt: skip
        for merged in own.merged:
            outer = typed(column(alias, keep(merged.name, merged.expression.copy())), type_of(merged.expression))
            inner.merged.append(Merged(merged.name, _described(outer, merged.expression), merged.hides, merged.before))
        select = exp.Select(expressions=items, from_=exp.From(this=head), joins=tail)
        if (condition := nested.filtered(None)) is not None:
            select.set("where", exp.Where(this=condition))
        return exp.Subquery(this=select, alias=exp.TableAlias(this=quoted(alias)))

    # -- joins ------------------------------------------------------------------------------------------------------------------

    def _join(self, join: exp.Join, inner: Scope) -> exp.Join:
        right = Scope(self.context, parent=self.scope)
        item = self._item(join.this, right, self._seen(inner))
        side = join.side
        bound = exp.Join(this=item)
        if isinstance(item, exp.Lateral) and side in ("RIGHT", "FULL"):
            raise self.context.error(UnsupportedQueryError, join, f"{side} JOIN LATERAL has no meaning", "use LEFT JOIN LATERAL")
        has_condition = join.args.get("on") is not None or bool(join.args.get("using")) or join.method == "NATURAL"
        if join.kind == "CROSS" or not has_condition:
            bound.set("kind", "CROSS")
            inner.sources += right.sources
            inner.merged += right.merged
            return bound
        condition, merged = self._condition(join, inner, right, side)
        bound.set("on", condition)
        if join.method == "ASOF":
            check_asof(self.context, join, condition, inner.aliases(), right.aliases())
            bound.set("method", "ASOF")
        if side:
            bound.set("side", side)
        elif join.method != "ASOF":
            bound.set("kind", "INNER")
        if (span := self.context.places.span(join)) is not None:
            bound.meta["span"] = span
        inner.sources += right.sources
        inner.merged = [*inner.merged, *right.merged, *merged]
        return bound

    def _condition(self, join: exp.Join, inner: Scope, right: Scope, side: str) -> tuple[exp.Expr, list[Merged]]:
        on = join.args.get("on")
        if on is None:
            return self._merge(join, inner, right, side)
        both = Scope(self.context, parent=self._outside(), sources=[*inner.sources, *right.sources])
        both.merged = [*inner.merged, *right.merged]
        condition = self.expressions(both).condition(on)
        if both.is_correlated:
            self.scope.is_correlated = True
        return condition, []

    def _existence(self, join: exp.Join, inner: Scope) -> exp.Expr:
        right = Scope(self.context, parent=self.scope)
        item = self._item(join.this, right, self._seen(inner))
        condition, _ = self._condition(join, inner, right, "")
        return existence(item, condition, is_anti=join.kind == "ANTI")

    def filtered(self, where: exp.Expr | None) -> exp.Expr | None:
        """Return the condition of WHERE with what SEMI and ANTI joins add to it."""
        if not self.filters:
            return where
        terms = [*self.filters, *([where] if where is not None else [])]
        return balanced(exp.And, [as_term(term) for term in terms])

    def _merge(self, join: exp.Join, left: Scope, right: Scope, side: str) -> tuple[exp.Expr, list[Merged]]:
        names = list(join.args.get("using") or []) or self._common(join, left, right)
        binder = self.expressions(left)
        terms: list[exp.Expr] = []
        merged: list[Merged] = []
        for name in names:
            found = []
            for scope in (left, right):
                local = Scope(self.context, sources=scope.sources, merged=scope.merged)
                found.append(local.resolve(_placed(name)))
            first, second = binder.comparable(found[0], found[1], name)
            # the last column of an ASOF JOIN is the one that is not met exactly
            kind = exp.GTE if join.method == "ASOF" and name is names[-1] else exp.EQ
            terms.append(typed(kind(this=first, expression=second), BOOLEAN))
            own: exp.Expr = found[1] if side == "RIGHT" else found[0]
            if side == "FULL":
                common, both = binder.unify([node.copy() for node in found], name)
                own = _described(typed(call("coalesce", *both), common), found[0])
            hides = {pair for scope in (left, right) for pair in _owners(scope, name)}
            merged.append(Merged(_declared(left, name), own, frozenset(hides), left.sources[0].key or left.sources[0].alias))
        condition = terms[0]
        for term in terms[1:]:
            condition = typed(exp.And(this=condition, expression=term), BOOLEAN)
        return condition, merged

    def _common(self, join: exp.Join, left: Scope, right: Scope) -> list[exp.Identifier]:
        ours = {name.lower() for name, _ in left.star()}
        names = [exp.Identifier(this=name, quoted=False) for name, _ in right.star() if name.lower() in ours]
        if not names:
            raise self.context.error(QueryTypeError, join, "NATURAL JOIN of tables without a common column", "write JOIN .. ON ..")
        return names

    def _check_names(self, select: exp.Select) -> None:
        taken: dict[tuple[str, str], None] = {}
        for source in self.scope.sources:
            key = (source.name.lower(), "" if source.is_aliased else source.schema.lower())
            if key in taken:
                at = select.args["from_"]
                raise self.context.error(UnknownNameError, at, f"{source.name} stands twice in FROM", "give each an alias")
            taken[key] = None


def _owners(scope: Scope, name: exp.Identifier) -> list[tuple[str, str]]:
    return [(source.key or source.alias, c.name) for source in scope.sources for c in source.find(name)]


def _declared(scope: Scope, name: exp.Identifier) -> str:
    """The declared spelling of a merged column."""
    for merged in scope.merged:
        if matches(name, merged.name):
            return merged.name
    return next((c.name for source in scope.sources for c in source.find(name)), name.name)


def _placed(name: exp.Identifier) -> exp.Column:
    copy = exp.Column(this=name.copy())
    copy.parent = name.parent
    return copy


def _described(node: exp.Expr, origin: exp.Expr) -> exp.Expr:
    for key in ("unit", "ucd", "utype", "description", "system"):
        if key in origin.meta:
            node.meta[key] = origin.meta[key]
    return node


def _has_modifiers(item: exp.Subquery) -> bool:
    return any(item.args.get(key) for key in ("order", "limit", "offset", "with_"))


def _unaliased(item: exp.Subquery) -> exp.Subquery:
    copy = item.copy()
    copy.set("alias", None)
    return copy


def _renamed(context: Context, item: exp.Expr, query: exp.Query, columns: tuple[OutputColumn, ...]) -> tuple[OutputColumn, ...]:
    alias = item.args.get("alias")
    names = alias.columns if isinstance(alias, exp.TableAlias) else []
    if not names:
        return columns
    if len(names) != len(columns):
        raise context.error(QueryTypeError, item, f"{len(names)} names for {len(columns)} columns")
    context.extension("column names after the alias of a sub-query")
    return rename(query, columns, [name.name for name in names])


def rename(query: exp.Query, columns: tuple[OutputColumn, ...], names: list[str]) -> tuple[OutputColumn, ...]:
    """Give the output columns of a bound query other names, in place."""
    taken: set[str] = set()
    names = [_free(name, taken) for name in names]
    if isinstance(query, exp.Select):
        for item, name in zip(query.expressions, names, strict=True):
            item.set("alias", quoted(name))
    else:
        at = query
        while isinstance(at, (exp.SetOperation, exp.Subquery)):
            at = at.this
        for item, name in zip(at.expressions, names, strict=True):
            item.set("alias", quoted(name))
    return tuple(replace(c, name=name) for c, name in zip(columns, names, strict=True))


def _free(name: str, taken: set[str]) -> str:
    found, number = name, 1
    while found.lower() in taken:
        number += 1
        found = f"{name}_{number}"
    taken.add(found.lower())
    return found
