"""The header that astropy writes into ECSV and Parquet files: YAML with type, unit and description of each column.

It is read as plain data: tags that would make objects (units, quantities, ordered mappings) count as what they are written with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml  # type: ignore[import-untyped]

from qengine.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnHeader:
    """A column as the header has it; `subtype` is set for lists and for JSON in text."""

    name: str
    datatype: str
    subtype: str
    words: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class TableHeader:
    """The columns in order and the delimiter of the text."""

    columns: tuple[ColumnHeader, ...]
    delimiter: str


class _Plain(yaml.SafeLoader):  # type: ignore[misc]
    """Reads every tagged node as the plain mapping, list or text that it is."""


def _plain(loader: Any, _: str, node: Any) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return loader.construct_scalar(node)


_Plain.add_multi_constructor("", _plain)
for _tag in ("omap", "set", "pairs"):
    _Plain.add_constructor(f"tag:yaml.org,2002:{_tag}", lambda loader, node: _plain(loader, "", node))


def read_header(text: str, where: str) -> TableHeader:
    """Return what the YAML says. Raise `InputError` if it is not such a header."""
    try:
        found = yaml.load(text, _Plain)
        columns = tuple(_column(each) for each in found["datatype"])
    except yaml.YAMLError as error:
        raise InputError(f"{where}: the header is not astropy's YAML: {next(iter(str(error).splitlines()), '')}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{where}: the header is not astropy's YAML: it describes no columns by name and datatype") from error
    return TableHeader(columns=columns, delimiter=str(found.get("delimiter", " ")))


def words_of(lines: Sequence[str] | str, where: str) -> Mapping[str, Mapping[str, str]]:
    """Return the words (unit, description, ucd) of each column that a header describes."""
    header = read_header(lines if isinstance(lines, str) else "\n".join(lines), where)
    return {column.name: column.words for column in header.columns}


def _column(found: Mapping[str, Any]) -> ColumnHeader:
    extra = found.get("meta")
    if isinstance(extra, list):  # an ordered mapping
        extra = {key: value for each in extra if isinstance(each, Mapping) for key, value in each.items()}
    meta: Mapping[str, Any] = extra if isinstance(extra, Mapping) else {}
    words = {
        "unit": _text(found.get("unit")),
        "ucd": _text(meta.get("ucd", found.get("ucd"))),
        "utype": _text(meta.get("utype")),
        "description": _text(found.get("description")),
    }
    return ColumnHeader(
        name=str(found["name"]),
        datatype=str(found["datatype"]),
        subtype=_text(found.get("subtype")),
        words={key: value for key, value in words.items() if value},
    )


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        value = value.get("unit", "")
    return "" if value is None else str(value)
