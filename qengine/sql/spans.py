"""Where a node stands in the statement, and suggestions of names that look like a wrong one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from sqlglot import exp

from qengine.errors import Span


def span_at(text: str, start: int, end: int) -> Span:
    """Return the span of `text[start:end]`, with line and column counted from 1."""
    start = max(0, min(start, len(text)))
    line = text.count("\n", 0, start) + 1
    column = start - (text.rfind("\n", 0, start) + 1) + 1
    return Span(line, column, start, max(start, min(end, len(text))))


def span_of(node: exp.Expr, text: str) -> Span | None:
    """Return the span that covers the parsed `node`: from its first to its last token of which a position is kept."""
    first, last = len(text), -1
    for part in node.walk():
        meta = part.meta
        if "start" in meta:
            first, last = min(first, meta["start"]), max(last, meta["end"])
    return span_at(text, first, last + 1) if last >= 0 else None


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint that names up to three of `known` that resemble `name`; empty if none does."""
    spelling = {candidate.lower(): candidate for candidate in known}
    found = difflib.get_close_matches(name.lower(), spelling, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(spelling[key] for key in found)}?" if found else ""
