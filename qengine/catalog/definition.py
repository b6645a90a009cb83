"""A table's definition as JSON: what manifests and the registry keep of `Table`.

Only what differs from the defaults is written, so that a thousand columns stay small and a field that a later version adds
with a default can be read from older text. Words that this version does not know are refused: they would have meant something.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from qengine.catalog.model import Column, Example, ForeignKey, Link, Match, Release, Table, TableKind, Threshold, TimeSystem
from qengine.catalog.types import SqlType
from qengine.errors import RegistryError

_NAMES = ("dropped", "statistics", "indexes")


def to_json(table: Table) -> str:
    """Return the definition as JSON text; equal tables give equal text."""
    words = _changed(table)
    words["kind"] = table.kind.value
    words["columns"] = [_column(column) for column in table.columns]
    if table.foreign_keys:
        words["foreign_keys"] = [_changed(key) for key in table.foreign_keys]
    if table.release != Release():
        words["release"] = _changed(table.release)
    if table.match is not None:
        words["match"] = _changed(table.match)
    if table.virtual:
        words["virtual"] = [_column(column) for column in table.virtual]
    for name in ("times", "quality", "examples", "links"):
        if found := getattr(table, name):
            words[name] = [_changed(each) for each in found]
    return json.dumps(words, ensure_ascii=False, separators=(",", ":"))


def from_json(text: str) -> Table:
    """Return the table that `to_json` wrote. Raise `RegistryError` for anything else."""
    try:
        words: dict[str, Any] = json.loads(text)
        words["kind"] = TableKind(words["kind"])
        for name in ("columns", "virtual"):
            words[name] = tuple(Column(**{**c, "type": SqlType(*c["type"])}) for c in words.get(name, ()))
        words["times"] = tuple(TimeSystem(**each) for each in words.get("times", ()))
        words["quality"] = tuple(Threshold(**each) for each in words.get("quality", ()))
        words["examples"] = tuple(Example(**each) for each in words.get("examples", ()))
        words["links"] = tuple(Link(**each) for each in words.get("links", ()))
        for name in _NAMES:
            words[name] = tuple(words.get(name, ()))
        words["foreign_keys"] = tuple(
            ForeignKey(**{**key, "columns": tuple(key["columns"]), "target_columns": tuple(key["target_columns"])})
            for key in words.get("foreign_keys", ())
        )
        words["release"] = Release(**words.get("release", {}))
        if "match" in words:
            words["match"] = Match(**words["match"])
        return Table(**words)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise RegistryError(f"a table definition cannot be read: {error}", hint="it may be of a newer qengine") from error


def _column(column: Column) -> dict[str, Any]:
    words = _changed(column)
    words["type"] = [column.type.name, column.type.xtype] if column.type.xtype else [column.type.name]
    return words


def _changed(value: Table | Column | ForeignKey | Release | Match | TimeSystem | Threshold | Example | Link) -> dict[str, Any]:
    """Return the plain fields whose values differ from their defaults."""
    return {
        field.name: getattr(value, field.name)
        for field in dataclasses.fields(value)
        if field.default is dataclasses.MISSING or getattr(value, field.name) != field.default
    }
