"""Smaller versions of a query, the boldest first: what `Harness.reduce` tries to explain a failure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import replace

from tests.support import query_ast as q


def smaller(query: q.Node) -> Iterator[q.Node]:
    """Yield queries with one part less. Some of them are not valid any more; the caller finds out."""
    if isinstance(query, q.With):
        yield query.body
        for i in range(len(query.ctes)):
            yield replace(query, ctes=(*query.ctes[:i], *query.ctes[i + 1 :]))
    yield from _smaller(query)


def _smaller(node: object) -> Iterator[q.Node]:
    if isinstance(node, q.Node):
        yield from _own(node)
        is_sorted = isinstance(node, q.Select) and bool(node.order)
        for field in dataclasses.fields(node):  # type: ignore[arg-type]
            if is_sorted and field.name in ("items", "group", "order"):
                continue  # sort keys repeat outputs and group keys: first the order goes, then they shrink
            value = getattr(node, field.name)
            for part in _parts(value):
                yield replace(node, **{field.name: part})  # type: ignore[type-var]


def _parts(value: object) -> Iterator[object]:
    """Replacements of one field by something smaller inside it."""
    if isinstance(value, q.Node):
        yield from _smaller(value)
    elif isinstance(value, tuple):
        for i, item in enumerate(value):
            for part in _parts(item):
                yield (*value[:i], part, *value[i + 1 :])


def _own(node: q.Node) -> Iterator[q.Node]:
    """Smaller versions by the node's own structure."""
    match node:
        case q.Select():
            yield from _select(node)
        case q.SetOp(order=order, offset=offset):
            yield node.left
            yield node.right
            if order:
                yield replace(node, order=())
            if offset is not None:
                yield replace(node, offset=None)
        case q.Join(left=left, right=right, kind=kind):
            yield left
            yield right
            if kind not in (",", "INNER"):
                yield replace(node, kind="INNER")
        case q.And(items=items) | q.Or(items=items):
            yield from items
            if len(items) > 2:
                for i in range(len(items)):
                    yield replace(node, items=(*items[:i], *items[i + 1 :]))
        case q.Not(item=item):
            yield item
        case q.Quotient(left=left) | q.Binary(left=left):
            yield left
        case q.Negative(value=value) | q.Cast(value=value):
            yield value
        case q.Call(args=args):
            yield from args
        case q.Case(whens=whens):
            yield whens[0][1]
        case q.Derived(query=q.Select(source=q.TableRef() as table), alias=alias):
            yield replace(table, alias=alias)


def _select(node: q.Select) -> Iterator[q.Node]:
    if node.qualify is not None:
        yield replace(node, qualify=None)
    if node.sets:
        yield replace(node, sets="")
    if node.where is not None:
        yield replace(node, where=None)
    if node.having is not None:
        yield replace(node, having=None)
    if node.order:
        yield replace(node, order=())
        for i in range(len(node.order)):
            yield replace(node, order=(*node.order[:i], *node.order[i + 1 :]))
    if node.top is not None:
        yield replace(node, top=None)
    if node.offset is not None:
        yield replace(node, offset=None)
    if node.distinct:
        yield replace(node, distinct=False)
    if len(node.items) > 1:
        # Sort keys name outputs by their place.
        first = max((key.output + 1 for key in node.order), default=0)
        for i in range(first, len(node.items)):
            yield replace(node, items=(*node.items[:i], *node.items[i + 1 :]))
    if not node.order:
        for i in range(len(node.group)):
            yield replace(node, group=(*node.group[:i], *node.group[i + 1 :]))
