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


def copy_tree(tree: E, *, without: Collection[str] = ()) -> E:
    """Return a copy of the tree that shares no node and no `meta` with it, and has no parent.

    `without` names arguments of the root (clauses of a SELECT) that the copy does not have.
    """
    if without:
        return _copy_without(tree, without)
    root = tree.__class__()
    pending: list[tuple[exp.Expr, exp.Expr]] = [(tree, root)]
    while pending:
        node, copy = pending.pop()
        if node.comments is not None:
            copy.comments = list(node.comments)
        if node._type is not None:
            copy._type = node._type.copy()
        if node._meta is not None:
            copy._meta = node._meta.copy()
        copy._hash = node._hash
        args = copy.args
        for key, value in node.args.items():
            if isinstance(value, exp.Expr):
                args[key] = child = value.__class__()
                child.parent, child.arg_key = copy, key
                pending.append((value, child))
            elif value.__class__ is list:
                args[key] = items = []
                for place, item in enumerate(value):
                    if isinstance(item, exp.Expr):
                        child = item.__class__()
                        child.parent, child.arg_key, child.index = copy, key, place
                        pending.append((item, child))
                        items.append(child)
                    else:
                        items.append(item)
            else:
                args[key] = value
    return root


def _copy_without(tree: E, without: Collection[str]) -> E:
    root = tree.__class__()
    if tree.comments is not None:
        root.comments = list(tree.comments)
    if tree._meta is not None:
        root._meta = tree._meta.copy()
    for key, value in tree.args.items():
        if key in without:
            continue
        if isinstance(value, exp.Expr):
            root.set(key, copy_tree(value))
        elif value.__class__ is list:
            root.set(key, [copy_tree(item) if isinstance(item, exp.Expr) else item for item in value])
        else:
            root.args[key] = value
    return root


def nodes_of(tree: exp.Expr) -> list[exp.Expr]:
    """Return all nodes of the tree, level by level and from left to right, as `walk` yields them."""
    found = [tree]
    for node in found:
        for value in node.args.values():
            if isinstance(value, exp.Expr):
                found.append(value)
            elif value.__class__ is list:
                found += [item for item in value if isinstance(item, exp.Expr)]
    return found


def find(tree: exp.Expr, kind: type[N]) -> list[N]:
    """Return the nodes of a class (or of classes below it), in the order of `nodes_of`."""
    return [node for node in nodes_of(tree) if isinstance(node, kind)]
