"""Long lists of integers, kept as one node on their way from the text to DuckDB.

`objectId IN (` thousands of numbers `)` is a common statement, and as a node of its own each number would be tokenized, parsed,
checked, bound, written, and copied some ten times. So a list of at least `LEAST` plain integers is taken out of the text before it
is tokenized, where a list of one and blanks stays in its place (`take_lists`; all positions hold). The parser puts one node there:
`exp.Var` whose text is the list as SQL and whose argument `integers` has the values. It stands alone in the `expressions` of an
`exp.In` and is written by any generator as it is. Whoever reads constants of an IN asks `integers_of`.

What is left alone is parsed as ever: lists with anything but integers of at most 18 digits in them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from sqlglot import exp

LEAST = 32
"""Shorter lists are ordinary literals."""

_INTEGER = "-?[0-9]{1,18}"
_LIST = re.compile(
    # What may hold the word IN without meaning it goes first.
    r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*"""
    rf"|\bIN\s*(?P<list>\(\s*{_INTEGER}(?:\s*,\s*{_INTEGER}){{{LEAST - 1},}}\s*\))",
    re.IGNORECASE,
)
_ARGUMENT = "integers"
_SHORTEST = 2 * LEAST

Lists = Mapping[int, tuple[int, ...]]
"""Offset of the opening parenthesis -> values."""


def take_lists(text: str) -> tuple[str, Lists]:
    """Return the text with the first number only in each long list, blanks for the rest, and what was taken out."""
    if len(text) < _SHORTEST or "/*" in text:  # comments of that kind nest, which a regular expression cannot follow
        return text, {}
    found: dict[int, tuple[int, ...]] = {}
    pieces: list[str] = []
    at = 0
    for match in _LIST.finditer(text):
        if match["list"] is None:
            continue
        start, stop = match.span("list")
        first = text.index(",", start, stop)
        pieces += [text[at:first], re.sub(r"[^\s]", " ", text[first : stop - 1])]
        at = stop - 1
        found[start] = tuple(map(int, text[start + 1 : stop - 1].split(",")))
    return ("".join([*pieces, text[at:]]), found) if found else (text, found)


def list_node(values: Sequence[int]) -> exp.Var:
    """Return the node of a list."""
    return exp.Var(this=", ".join(map(str, values)), **{_ARGUMENT: tuple(values)})


def integers_of(node: exp.Expr) -> tuple[int, ...] | None:
    """Return the values if this is the node of a list."""
    found = node.args.get(_ARGUMENT) if isinstance(node, exp.Var) else None
    return found if isinstance(found, tuple) else None
