"""Small parts of comparisons: plain members of lists, and what to write instead of a comparison without meaning."""

from __future__ import annotations

from sqlglot import exp

from qengine.catalog.types import SqlType
from qengine.sql.coercion import is_temporal
from qengine.sql.nodes import number, text_literal


def plain_member(subject: SqlType, node: exp.Expr) -> exp.Expr | None:
    """Return a literal of a list that needs nothing but its type: lists may have thousands."""
    if not isinstance(node, exp.Literal):
        return None
    if node.is_string:
        return text_literal(str(node.this)) if subject.is_text else None
    if not subject.is_numeric:
        return None
    text = str(node.this)
    value: int | float = int(text) if text.isdigit() else float(text)
    return number(value) if abs(value) < float("inf") else None


def comparison_hint(first: SqlType, second: SqlType) -> str:
    """Say what to write instead of a comparison that has no meaning."""
    if first.is_text and second.is_text:
        return ""
    if first.is_text or second.is_text:
        return "texts stand in single quotes, numbers without; CAST(x AS VARCHAR) or CAST(x AS BIGINT) turns one into the other"
    if is_temporal(first) or is_temporal(second):
        return "write a time as '2026-01-01T00:00:00'"
    return ""
