"""Regions written as text: STC-S and DALI forms, single shapes and combinations of them.

    Circle ICRS 10 20 0.5        CIRCLE 10 20 0.5         Polygon ICRS GEOCENTER 1 2 3 4 5 6
    Union ICRS (Circle 10 20 1 Box 12 20 2 2)             Intersection (Circle 10 20 1 Not (Circle 10 20 0.5))
    RANGE 10 20 -5 5             (DALI: longitudes from 10 to 20, latitudes from -5 to 5)

A combination is a tree; it stands for nothing but the second argument of CONTAINS and an argument of INTERSECTS.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from sqlglot import exp

from qengine.catalog.types import CIRCLE, POINT, POLYGON, SqlType
from qengine.errors import QueryTypeError, UnsupportedQueryError
from qengine.sql.nodes import number, text_literal, typed
from qengine.sql.scopes import Context
from qengine.sql.shapes import box_corners, check_frame, make_shape

REGION = SqlType("VARCHAR", "region")
"""Type of a combination of shapes: its text."""

_COMBINATIONS = ("UNION", "INTERSECTION", "NOT")
_SIZES = {"POSITION": 2, "POINT": 2, "CIRCLE": 3, "BOX": 4, "RANGE": 4}
_FLAVOURS = ("GEOCENTER", "BARYCENTER", "TOPOCENTER", "SPHERICAL2", "UNKNOWNREFPOS", "HELIOCENTER", "RELOCATABLE")


@dataclass(frozen=True, slots=True)
class Combination:
    """`operator` (UNION, INTERSECTION, NOT) over members, or RANGE with four numbers."""

    operator: str
    members: tuple[Combination | exp.Expr, ...] = ()
    numbers: tuple[float, ...] = ()


def region_from_text(context: Context, node: exp.Expr, text: str) -> exp.Expr:
    """Return the bound node of a region: a geometry if it is one shape, else its text as a `REGION`."""
    found = read_region(context, node, text)
    return typed(text_literal(text), REGION) if isinstance(found, Combination) else found


def read_region(context: Context, node: exp.Expr, text: str) -> Combination | exp.Expr:
    """Read a region; shapes are bound geometry nodes. Raise an error at `node` if it is not understood."""
    words = re.findall(r"[()]|[^\s,()]+", text)
    reader = _Reader(context, node, text, words)
    found = reader.region()
    if reader.place < len(words):
        raise reader.error(f"'{words[reader.place]}' follows the end of the region")
    return found


@dataclass(slots=True)
class _Reader:
    context: Context
    node: exp.Expr
    text: str
    words: list[str]
    place: int = 0

    def error(self, message: str) -> Exception:
        return self.context.error(QueryTypeError, self.node, f"{message}: '{self.text}'")

    def region(self) -> Combination | exp.Expr:
        kind = self.words[self.place].upper() if self.place < len(self.words) else ""
        if kind not in (*_COMBINATIONS, *_SIZES, "POLYGON"):
            known = "Position, Circle, Box, Polygon, Range, Union, Intersection and Not"
            message = f"'{self.text}' is not a region that is understood"
            raise self.context.error(UnsupportedQueryError, self.node, message, f"known are {known}")
        self.place += 1
        self._frame()
        return self._combination(kind) if kind in _COMBINATIONS else self._shape(kind)

    def _frame(self) -> None:
        while self.place < len(self.words) and not re.match(r"[-+.\d()]", self.words[self.place]):
            word = self.words[self.place]
            if word.upper() not in _FLAVOURS:
                check_frame(self.context, self.node, word)
            self.place += 1

    def _combination(self, operator: str) -> Combination:
        if self.place >= len(self.words) or self.words[self.place] != "(":
            raise self.error(f"{operator} is followed by parentheses")
        self.place += 1
        members = []
        while self.place < len(self.words) and self.words[self.place] != ")":
            members.append(self.region())
        if self.place >= len(self.words):
            raise self.error("a parenthesis is not closed")
        self.place += 1
        if (len(members) != 1) if operator == "NOT" else not members:
            raise self.error("NOT has one member" if operator == "NOT" else f"{operator} has no members")
        return Combination(operator, tuple(members))

    def _shape(self, kind: str) -> Combination | exp.Expr:
        values: list[float] = []
        while self.place < len(self.words) and re.match(r"[-+.\d]", self.words[self.place]):
            word = self.words[self.place]
            try:
                values.append(float(word))
            except ValueError as error:
                raise self.error(f"'{word}' is not a number") from error
            self.place += 1
        if not all(math.isfinite(value) for value in values):
            raise self.error("a number is not finite")
        if kind != "POLYGON" and len(values) != _SIZES[kind]:
            raise self.error(f"{kind} has {_SIZES[kind]} numbers, not {len(values)}")
        if kind == "POLYGON" and (len(values) < 6 or len(values) % 2):
            raise self.error("POLYGON has at least three pairs of numbers")
        if kind == "RANGE":
            if not (values[0] <= values[1] and -90 <= values[2] <= values[3] <= 90):
                raise self.error("RANGE has two longitudes and two latitudes, each in ascending order")
            return Combination("RANGE", numbers=tuple(values))
        if kind == "BOX":
            kind, values = "POLYGON", box_corners(self.context, self.node, values)
        target = {"POLYGON": POLYGON, "CIRCLE": CIRCLE}.get(kind, POINT)
        return make_shape(self.context, self.node, target, [number(value) for value in values])
