"""Walking and copying trees, as often as planning needs it.

Rules never change their input, so every rule that changes something copies first, and every reader walks. sqlglot's own `copy`
copies each node's `meta` with `copy.deepcopy`, which takes most of its time, and its walks yield through generators. Both are
written here for trees of this project, whose `meta` holds plain immutable values only (`qengine.sql.nodes`): a copy of a node
takes a shallow copy of its `meta`, and walks return lists.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeVar

from sqlglot import exp

E = TypeVar("E", bound=exp.Expr)
N = TypeVar("N", bound=exp.Expr)

_Node = exp.Expr
_PLAIN = frozenset({str, bool, int, type(None)})
_LEAVES = frozenset({exp.Identifier, exp.Literal, exp.Null, exp.Boolean})
"""Classes of nodes that never have nodes below them: more than half of a tree."""


def copy_tree(tree: E, *, without: Collection[str] = ()) -> E:
    """Return a copy of the tree that shares no node and no `meta` with it, and has no parent.

    `without` names arguments of the root (clauses of a SELECT) that the copy does not have.
    """
    if without:
        return _copy_without(tree, without)
    root = _blank(tree, None, None)
    pending: list[tuple[exp.Expr, exp.Expr]] = [(tree, root)]
    for node, copy in pending:
        args = copy.args
        for key, value in node.args.items():
            if value.__class__ in _PLAIN:
                args[key] = value
            elif isinstance(value, _Node):
                args[key] = child = _blank(value, copy, key)
                if value.__class__ not in _LEAVES:
                    pending.append((value, child))
            elif value.__class__ is list:
                items: list[object] = []
                args[key] = items
                for item in value:
                    if isinstance(item, _Node):
                        child = _blank(item, copy, key)
                        child.index = len(items)
                        if item.__class__ not in _LEAVES:
                            pending.append((item, child))
                        items.append(child)
                    else:
                        items.append(item)
            else:
                args[key] = value
    return root


def _blank(node: E, parent: exp.Expr | None, key: str | None) -> E:
    """Return a copy of a node without its arguments; a leaf has them. (A constructor would do the same, at twice the price.)"""
    kind_of = node.__class__
    copy = kind_of.__new__(kind_of)
    copy.args = node.args.copy() if kind_of in _LEAVES else {}
    copy.parent, copy.arg_key, copy.index = parent, key, None
    comments, meta, kind = node.comments, node._meta, node._type
    copy.comments = None if comments is None else list(comments)
    copy._meta = None if meta is None else meta.copy()
    copy._type = None if kind is None else kind.copy()
    copy._hash = node._hash
    return copy


def _copy_without(tree: E, without: Collection[str]) -> E:
    root = _blank(tree, None, None)
    root._hash = None
    for key, value in tree.args.items():
        if key in without:
            continue
        if isinstance(value, _Node):
            root.set(key, copy_tree(value))
        elif value.__class__ is list:
            root.set(key, [copy_tree(item) if isinstance(item, _Node) else item for item in value])
        else:
            root.args[key] = value
    return root


def nodes_of(tree: exp.Expr) -> list[exp.Expr]:
    """Return all nodes of the tree, level by level and from left to right, as `walk` yields them."""
    found = [tree]
    for node in found:
        # As `children_of`, which would be called for each node.
        if node.__class__ in _LEAVES:
            continue
        for value in node.args.values():
            if value.__class__ in _PLAIN:
                continue
            if isinstance(value, _Node):
                found.append(value)
            elif value.__class__ is list:
                found += [item for item in value if isinstance(item, _Node)]
    return found


def children_of(node: exp.Expr) -> list[exp.Expr]:
    """Return the nodes directly below a node, from left to right."""
    found: list[exp.Expr] = []
    if node.__class__ in _LEAVES:
        return found
    for value in node.args.values():
        if value.__class__ in _PLAIN:
            continue
        if isinstance(value, _Node):
            found.append(value)
        elif value.__class__ is list:
            found += [item for item in value if isinstance(item, _Node)]
    return found


def find(tree: exp.Expr, kind: type[N]) -> list[N]:
    """Return the nodes of a class (or of classes below it), in the order of `nodes_of`."""
    return [node for node in nodes_of(tree) if isinstance(node, kind)]
