"""Named windows: `f(..) OVER w .. WINDOW w AS (..)` is written out as `f(..) OVER (..)` before anything else looks at the tree.

A window may refine a named one: `OVER (w ORDER BY x)` takes the partition of w and adds an order or a frame, where w has none. A
window may be defined by one that stands before it.
"""

from __future__ import annotations

from sqlglot import exp

from qengine.errors import QuerySyntaxError, Span
from qengine.sql.spans import nearest, span_at

_PARTS = ("partition_by", "order", "spec")


def inline_windows(tree: exp.Expr, text: str) -> bool:
    """Replace references to named windows by their definitions, in place; say whether there were any definitions."""
    is_used = False
    for select in list(tree.find_all(exp.Select)):
        definitions: dict[str, exp.Window] = {}
        for window in select.args.get("windows") or []:
            name = window.this
            if name.name.lower() in definitions:
                raise QuerySyntaxError(f"the window {name.name} is defined twice", span=_span(name, text))
            definitions[name.name.lower()] = _resolved(window, definitions, text)
            is_used = True
        for window in _windows_of(select):
            _take(window, definitions, text)
        select.set("windows", None)
    return is_used


def _windows_of(select: exp.Select) -> list[exp.Window]:
    """Return the windows of this block, not those of sub-queries."""
    found: list[exp.Window] = []
    stack: list[exp.Expr] = [child for key in _clauses(select) for child in _children(select.args[key])]
    while stack:
        node = stack.pop()
        if isinstance(node, exp.Query) and not isinstance(node, exp.Table):
            continue
        if isinstance(node, exp.Window):
            found.append(node)
        stack += node.iter_expressions()
    return found


def _clauses(select: exp.Select) -> list[str]:
    return [key for key in select.args if key not in ("windows", "with_", "from_", "joins", "laterals")]


def _children(value: object) -> list[exp.Expr]:
    return [part for part in (value if isinstance(value, list) else [value]) if isinstance(part, exp.Expr)]


def _resolved(window: exp.Window, definitions: dict[str, exp.Window], text: str) -> exp.Window:
    _take(window, definitions, text)
    return window


def _take(window: exp.Window, definitions: dict[str, exp.Window], text: str) -> None:
    reference = window.args.get("alias")
    if reference is None:
        return
    base = definitions.get(reference.name.lower())
    if base is None:
        hint = nearest(reference.name, definitions) or "write WINDOW name AS (..) after the last clause"
        raise QuerySyntaxError(f"there is no window {reference.name}", span=_span(reference, text), hint=hint)
    if window.args.get("partition_by") and (base.args.get("partition_by") or base.args.get("order")):
        raise QuerySyntaxError("a window that refines a named one has no PARTITION BY of its own", span=_span(reference, text))
    for key in _PARTS:
        if not base.args.get(key):
            continue
        if window.args.get(key) and key != "partition_by":
            message = f"the window {reference.name} has {'an ORDER BY' if key == 'order' else 'a frame'} already"
            raise QuerySyntaxError(message, span=_span(reference, text))
        value = base.args[key]
        window.set(key, [part.copy() for part in value] if isinstance(value, list) else value.copy())
    window.set("alias", None)


def _span(node: exp.Expr, text: str) -> Span | None:
    meta = node.meta
    return span_at(text, meta["start"], meta["end"] + 1) if "start" in meta else None
