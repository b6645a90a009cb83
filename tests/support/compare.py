"""Is a result right? Multisets, ties, cuts, and last digits.

* Rows are compared as multisets: integers, text and exact doubles must be equal, with the same type class; values that went through a
  division, a root or an AVG may differ by 1e-9.
* With ORDER BY the row at each place must be one of the rows that may stand there: the oracle's keys are sorted here (NULL last),
  and a row is drawn from those with the key of its place. So ties may come in any order, and a cut through ties may keep any of them.
* TOP or OFFSET without ORDER BY: the right number of rows, all of them rows of the whole result, none too often.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from decimal import Decimal

import pyarrow as pa

from tests.support import query_ast as q
from tests.support.oracle import Answer

Row = tuple[object, ...]

TOLERANCE = 1e-9

_APPROXIMATE_CALLS = {"SQRT", "LOG", "LOG10", "EXP", "POWER", "SIN", "RADIANS"}
_APPROXIMATE_AGGREGATES = {"AVG", "STDDEV", "VARIANCE"}


def difference(query: q.Node, answer: Answer, got: pa.Table) -> str:
    """Return what is wrong with `got` as a few lines of text, or an empty string."""
    if tuple(got.column_names) != answer.names:
        return f"column names: expected {list(answer.names)}, got {got.column_names}"
    fuzzy = tuple(is_approximate(item) for item in q.outputs(query))
    rows = [tuple(_plain(value) for value in row) for row in zip(*(column.to_pylist() for column in got.columns), strict=True)]
    expected = [tuple(_plain(value) for value in row) for row in answer.rows]
    body = q.body_of(query)
    start = body.offset or 0
    top = body.top if isinstance(body, q.Select) else None
    stop = len(expected) if top is None else min(len(expected), start + top)
    if len(rows) != max(0, stop - start):
        text = f"expected {max(0, stop - start)} rows, got {len(rows)}"
        return text if start or top is not None else f"{text}\n{_rows_difference(expected, rows, fuzzy)}"
    if body.order:
        return _order_difference(answer, body.order, expected, rows, fuzzy, start)
    if start or top is not None:
        return _Bag(expected, fuzzy).missing(rows, "a row that is not in the whole result, or too often")
    return _rows_difference(expected, rows, fuzzy)


def is_approximate(node: q.Node) -> bool:
    """True where the last digits of a value are nobody's promise."""
    for inner in _walk(node):
        match inner:
            case q.Distance():
                return True
            case q.Aggregate(name=name) if name in _APPROXIMATE_AGGREGATES:
                return True
            case q.Call(name=name) if name in _APPROXIMATE_CALLS:
                return True
            case q.Binary(op="/", right=q.Literal(value=value)) if isinstance(value, int | float) and math.frexp(value)[0] not in (
                0.5,
                -0.5,
            ):
                return True
    return False


def _walk(value: object) -> Iterator[object]:
    yield value
    if isinstance(value, tuple):
        for item in value:
            yield from _walk(item)
    elif isinstance(value, q.Node):
        for field in dataclasses.fields(value):  # type: ignore[arg-type]
            yield from _walk(getattr(value, field.name))


def _plain(value: object) -> object:
    """Booleans count as 0/1; decimals as integers or doubles."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() and value.as_tuple().exponent == 0 else float(value)
    return value


def _is_same(one: object, two: object, is_fuzzy: bool) -> bool:
    if one is None or two is None:
        return one is two
    if isinstance(one, str) != isinstance(two, str) or (isinstance(one, int) != isinstance(two, int)):
        return False
    if is_fuzzy and isinstance(one, int | float) and isinstance(two, int | float):
        return math.isclose(one, two, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return one == two


class _Bag:
    """A multiset of rows from which matching rows are taken; exact columns find the candidates, the others decide."""

    def __init__(self, rows: Sequence[Row], fuzzy: tuple[bool, ...]) -> None:
        self._fuzzy = fuzzy
        self._rows: dict[Row, list[Row]] = {}
        for row in rows:
            self._rows.setdefault(self._exact(row), []).append(row)

    def _exact(self, row: Row) -> Row:
        return tuple(value for value, is_fuzzy in zip(row, self._fuzzy, strict=True) if not is_fuzzy)

    def take(self, row: Row) -> bool:
        candidates = self._rows.get(self._exact(row), [])
        for i, candidate in enumerate(candidates):
            if all(_is_same(*pair) for pair in zip(candidate, row, self._fuzzy, strict=True)):
                del candidates[i]
                return True
        return False

    def left(self) -> list[Row]:
        return [row for rows in self._rows.values() for row in rows]

    def missing(self, rows: Sequence[Row], complaint: str) -> str:
        for row in rows:
            if not self.take(row):
                return f"{complaint}: {row}"
        return ""


def _rows_difference(expected: Sequence[Row], rows: Sequence[Row], fuzzy: tuple[bool, ...]) -> str:
    bag = _Bag(expected, fuzzy)
    extra = [row for row in rows if not bag.take(row)]
    lost = bag.left()
    if not extra and not lost:
        return ""
    return f"{len(lost)} rows lost, e.g. {lost[:4]}\n{len(extra)} rows too many, e.g. {extra[:4]}"


def _order_difference(
    answer: Answer, order: tuple[q.Order, ...], expected: list[Row], rows: list[Row], fuzzy: tuple[bool, ...], start: int
) -> str:
    places = list(range(len(expected)))
    for number in reversed(range(len(order))):
        known = [i for i in places if answer.keys[i][number] is not None]
        unknown = [i for i in places if answer.keys[i][number] is None]
        known.sort(key=lambda i: answer.keys[i][number], reverse=order[number].descending)  # type: ignore[arg-type, return-value]
        places = known + unknown
    by_key: dict[Row, list[Row]] = {}
    for i in places:
        by_key.setdefault(answer.keys[i], []).append(expected[i])
    bags = {key: _Bag(group, fuzzy) for key, group in by_key.items()}
    for number, row in enumerate(rows):
        key = answer.keys[places[start + number]]
        if not bags[key].take(row):
            return f"row {number} must have the sort key {key} but is {row}"
    return ""
