"""Where nodes stand in the statement, and suggestions of names that look like a wrong one."""

from __future__ import annotations

import bisect
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


class Places:
    """The places of all nodes of one parsed tree: from the first to the last token of each of which a position is kept."""

    def __init__(self, tree: exp.Expr, text: str) -> None:
        self._length = len(text)
        self._lines = [0, *(index + 1 for index, character in enumerate(text) if character == "\n")]
        self._offsets: dict[int, tuple[int, int]] = {}
        for node in reversed(list(tree.bfs())):
            meta = node.meta
            first, last = (meta["start"], meta["end"]) if "start" in meta else (self._length, -1)
            for child in node.iter_expressions():
                low, high = self._offsets[id(child)]
                first, last = min(first, low), max(last, high)
            self._offsets[id(node)] = (first, last)
        # ids stay good while the nodes live
        self._tree = tree

    def span(self, node: exp.Expr) -> Span | None:
        """Return the span of a node of the tree, or None if no position below it is known."""
        first, last = self._offsets.get(id(node), (0, -1))
        if last < 0:
            return None
        line = bisect.bisect_right(self._lines, first)
        return Span(line, first - self._lines[line - 1] + 1, first, min(last + 1, self._length))

    def around(self, node: exp.Expr | None) -> Span | None:
        """Return the span of `node`, or of the nearest node around it that has one."""
        while node is not None:
            if (span := self.span(node)) is not None:
                return span
            node = node.parent
        return None


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint that names up to three of `known` that resemble `name`; empty if none does."""
    spelling = {candidate.lower(): candidate for candidate in known}
    found = difflib.get_close_matches(name.lower(), spelling, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(spelling[key] for key in found)}?" if found else ""
