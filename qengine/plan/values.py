"""What a relation's rows must be like for a term to be TRUE, and which parts can hold such a row.

A `Test` is a tree of ranges, lists and NULLs of columns, under AND and OR (`plan.value_terms` reads it from a term). `may_hold`
asks the statistics of parts. Both over-cover: a part that is left out holds no row for which the term is TRUE. Bounds count as
inside. NULL fulfils only IS NULL: a part whose rows are all NULL in a column fulfils no other test of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, assert_never

import numpy as np
from numpy.typing import NDArray

from qengine.catalog.model import ColumnStats, Parts

Value = int | float | str
Flags = NDArray[np.bool_]

_INT64 = (-(2**63), 2**63 - 1)


@dataclass(frozen=True, slots=True)
class Within:
    """The column's value is in [low, high]; None is an open end."""

    column: str
    low: Value | None
    high: Value | None


@dataclass(frozen=True, slots=True)
class OneOf:
    """The column's value is one of `values`, which are sorted and of one type."""

    column: str
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class NoneOf:
    """The column's value is none of `values`, and not NULL."""

    column: str
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Around:
    """The column is an angle in degrees, of any number of turns, in [low, high]."""

    column: str
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class IsNull:
    """The column is NULL, or is not."""

    column: str
    is_null: bool


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every test is fulfilled; nothing is said by no tests."""

    tests: tuple[Test, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one of the tests is fulfilled; no row fulfils no tests."""

    tests: tuple[Test, ...]


Test = Within | OneOf | NoneOf | Around | IsNull | AllOf | AnyOf


def columns_of(test: Test) -> frozenset[str]:
    """Return the columns that the test names."""
    if isinstance(test, (AllOf, AnyOf)):
        return frozenset().union(*(columns_of(inner) for inner in test.tests))
    return frozenset((test.column,))


# -- parts ---------------------------------------------------------------------------------------------------


def may_hold(test: Test, parts: Parts) -> Flags:
    """Say for every part whether it may hold a row that fulfils the test."""
    match test:
        case AllOf(tests):
            return reduce(np.logical_and, (may_hold(t, parts) for t in tests), np.ones(len(parts), np.bool_))
        case AnyOf(tests):
            return reduce(np.logical_or, (may_hold(t, parts) for t in tests), np.zeros(len(parts), np.bool_))
        case Within() | OneOf() | NoneOf() | Around() | IsNull():
            stats = parts.stats.get(test.column)
            if stats is None:
                return np.ones(len(parts), np.bool_)
            return _may_hold(test, stats, parts)
        case _:
            assert_never(test)


def _may_hold(test: Within | OneOf | NoneOf | Around | IsNull, stats: ColumnStats, parts: Parts) -> Flags:
    if isinstance(test, IsNull):
        return np.asarray(stats.nulls != 0 if test.is_null else (stats.nulls < 0) | (stats.nulls < parts.rows))
    found = np.asarray((stats.nulls < 0) | (stats.nulls < parts.rows))
    known = np.flatnonzero(stats.is_known & found)
    low, high = stats.minimum[known], stats.maximum[known]
    if len(known):
        found[known] = _bounds_may_hold(test, low, high)
    return found


def _bounds_may_hold(test: Within | OneOf | NoneOf | Around, low: NDArray[Any], high: NDArray[Any]) -> Flags:
    """Say for known bounds whether a value between them may fulfil the test."""
    keep = np.ones(len(low), np.bool_)
    is_text = low.dtype == object
    match test:
        case Within():
            if isinstance(test.low, str) is is_text and test.low is not None:
                keep &= ~(high < _comparable(test.low))
            if isinstance(test.high, str) is is_text and test.high is not None:
                keep &= ~(low > _comparable(test.high))
        case OneOf() | NoneOf():
            if not test.values:
                return keep if isinstance(test, NoneOf) else ~keep
            if isinstance(test.values[0], str) is not is_text:
                return keep
            values = _array(test.values)
            if values.dtype != low.dtype:
                values, low, high = (a.astype(np.float64) for a in (values, low, high))
            first = np.searchsorted(values, low, side="left")
            if isinstance(test, OneOf):
                keep = np.asarray(first < np.searchsorted(values, high, side="right"))
            else:
                there = values[np.minimum(first, len(values) - 1)]
                keep = ~np.asarray((low == high) & (there == low), np.bool_)
        case Around():
            if not is_text:
                least = np.ceil((low.astype(np.float64) - test.high) / 360.0)
                keep = np.asarray(least <= np.floor((high.astype(np.float64) - test.low) / 360.0))
                # Infinite bounds give no number of turns.
                keep |= ~np.isfinite(low.astype(np.float64)) | ~np.isfinite(high.astype(np.float64))
        case _:
            assert_never(test)
    return keep


def _comparable(value: Value) -> Value:
    """Numpy compares integers of 64 bits exactly, and larger ones not at all."""
    return float(value) if isinstance(value, int) and not _INT64[0] <= value <= _INT64[1] else value


def _array(values: Sequence[Value]) -> NDArray[Any]:
    if isinstance(values[0], str):
        return np.array(values, object)
    is_integer = all(isinstance(v, int) and _INT64[0] <= v <= _INT64[1] for v in values)
    return np.array(values, np.int64 if is_integer else np.float64)
