"""What a generated query can see: fields of known kind, and relations that hold them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum
from random import Random
from typing import TypeVar

import pyarrow as pa

from tests.support import query_ast as q
from tests.support.sky_builder import Role, Sky, SkyTable

Choice = TypeVar("Choice")


class Kind(Enum):
    """How a value may be used. EXACT: doubles whose sums are exact; POSITION: any doubles, compared but never summed; APPROX: output
    only; BOOL: compared with 0 and 1."""

    INT = "int"
    EXACT = "exact"
    POSITION = "position"
    TEXT = "text"
    TIME = "time"
    BOOL = "bool"
    APPROX = "approx"


@dataclass(frozen=True, slots=True)
class Field:
    """A column in scope. `samples` are values that occur in it; `is_big` marks integers beyond 2**53."""

    node: q.Node
    name: str
    kind: Kind
    role: Role
    samples: tuple[object, ...]

    def at(self, alias: str) -> Field:
        """The same field as a column of `alias`."""
        column = q.Column(alias, self.name)
        return replace(self, node=q.Flag(column) if self.kind is Kind.BOOL else column)

    @property
    def is_big(self) -> bool:
        return self.role in (Role.KEY, Role.DIRECTOR_KEY)


@dataclass(frozen=True, slots=True)
class Relation:
    """A FROM clause and its fields; `where` is a condition that comma joins still need. `positions` are (ra, dec) pairs."""

    source: q.Node
    fields: tuple[Field, ...]
    where: tuple[q.Node, ...] = ()

    def of(self, kind: Kind) -> list[Field]:
        return [field for field in self.fields if field.kind is kind]

    def role(self, role: Role) -> Field:
        return next(field for field in self.fields if field.role is role)

    def has(self, role: Role) -> bool:
        return any(field.role is role for field in self.fields)

    def keys(self) -> list[Field]:
        return [field for field in self.fields if field.role is Role.KEY]

    def positions(self) -> list[tuple[q.Node, q.Node]]:
        """(ra, dec) of every alias that has both."""
        found: dict[str, dict[Role, q.Node]] = {}
        for field in self.fields:
            if isinstance(field.node, q.Column) and field.role in (Role.RA, Role.DEC):
                found.setdefault(field.node.alias, {})[field.role] = field.node
        return [(pair[Role.RA], pair[Role.DEC]) for pair in found.values() if len(pair) == 2]


def fields_of(table: SkyTable, alias: str) -> tuple[Field, ...]:
    """The fields of a base table under `alias`."""
    found = []
    for name, column in zip(table.rows.column_names, table.clean.columns, strict=True):
        samples = tuple(value for value in column.to_pylist() if value is not None)
        role = table.role(name)
        if pa.types.is_integer(column.type):
            kind = Kind.INT
        elif pa.types.is_floating(column.type):
            kind = Kind.POSITION if role in (Role.RA, Role.DEC) else Kind.EXACT
        elif pa.types.is_timestamp(column.type):
            kind = Kind.TIME
        elif pa.types.is_boolean(column.type):
            kind, samples = Kind.BOOL, (0, 1)
        else:
            kind = Kind.TEXT
        found.append(Field(q.Column(alias, name), name, kind, role, samples).at(alias))
    return tuple(found)


class Generating:
    """What the parts of the generator share; the abstract methods are where values, predicates and relations need each other."""

    sky: Sky
    rng: Random

    def predicate(self, relation: Relation, depth: int = 1) -> q.Node:
        raise NotImplementedError

    def value_of(self, relation: Relation, kind: Kind, depth: int = 2) -> tuple[q.Node, Kind]:
        raise NotImplementedError

    def new_alias(self) -> str:
        raise NotImplementedError

    def choose(self, weights: Mapping[Choice, float]) -> Choice:
        return self.rng.choices(list(weights), list(weights.values()))[0]

    def luck(self, chance: float) -> bool:
        return self.rng.random() < chance

    def sample(self, field: Field) -> q.Literal:
        """A literal that occurs in the field, or nearly."""
        if not field.samples:
            return q.Literal("none" if field.kind is Kind.TEXT else 0)
        value = self.rng.choice(field.samples)
        if self.luck(0.2) and isinstance(value, int | float):
            value = value + self.rng.choice((-1, 1))
        if self.luck(0.2) and isinstance(value, datetime):
            value = value + timedelta(hours=self.rng.choice((-1, 1)))
        assert isinstance(value, int | float | str | datetime)
        if isinstance(value, float) and value == math.floor(value) and self.luck(0.3) and abs(value) < 1e6:
            value = int(value)
        return q.Literal(value)
