"""TAP request parameters: gathered from URL and form, names without regard to case, unknown ones ignored.

A repeated parameter that can have one value only must repeat the same value. What is wrong is an error that names the
parameter; nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import IO

import pyarrow as pa

from qengine.errors import ConfigError, QueryError, UnsupportedQueryError
from qengine.plan.limits import CostLimit
from qengine.tap.formats.choose import accepted, find_format
from qengine.tap.formats.writer import Format

LANGUAGES: Mapping[str, str] = {
    "ADQL": "adql",
    "ADQL-2.0": "adql",
    "ADQL-2.1": "adql",
    "ADQL-2.1-STRICT": "adql-strict",
    "SQL": "sql",
    "SQL-DUCKDB": "sql",
}
"""LANG values, upper case -> the language of the engine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncRequest:
    """A checked /sync request. `maxrec` is in rows, `max_cost` what `plan.limits` reads, `uploads` the tables that came with it."""

    text: str
    language: str
    format: Format
    content_type: str
    maxrec: int
    snapshots: Mapping[str, int | str] = field(default_factory=dict)
    max_cost: str = ""
    uploads: Mapping[str, pa.Table] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Parameters:
    """All values of each parameter, by upper-case name, in the order in which they came, and the files among the parts."""

    values: Mapping[str, tuple[str, ...]]
    files: Mapping[str, IO[bytes]] = field(default_factory=dict)

    @classmethod
    def gather(cls, pairs: Iterable[tuple[str, str]]) -> Parameters:
        """Return the parameters of `pairs`."""
        found: dict[str, list[str]] = {}
        for name, value in pairs:
            found.setdefault(name.upper(), []).append(value)
        return cls({name: tuple(values) for name, values in found.items()})

    def one(self, name: str) -> str:
        """Return the value of `name`, stripped; empty if it is absent. Raise `QueryError` if it has two different values."""
        found = {value.strip() for value in self.values.get(name, ())} - {""}
        if len(found) > 1:
            raise QueryError(f"{name} is given {len(found)} different values", hint="give it once")
        return next(iter(found), "")


def check_sync(
    parameters: Parameters,
    *,
    default_maxrec: int,
    maxrec_limit: int,
    uploads: Mapping[str, pa.Table] | None = None,
    accept: str = "",
) -> SyncRequest:
    """Return the request that `parameters` describe; `accept` is the header that says which format is liked where they do not.
    Raise `QueryError` that names the parameter which is missing or wrong."""
    request = parameters.one("REQUEST")
    if request and request.lower() != "doquery":
        raise QueryError(f"REQUEST={request} is not known here", hint="use REQUEST=doQuery or leave it out")
    if uploads is None and parameters.values.get("UPLOAD"):
        raise UnsupportedQueryError("UPLOAD is not supported here", hint="send the tables with the request that names them")
    chosen, content_type = find_format(_format(parameters) or accepted(accept))
    language, text = check_statement(parameters)
    return SyncRequest(
        text=text,
        language=language,
        format=chosen,
        content_type=content_type,
        maxrec=_maxrec(parameters.one("MAXREC"), default_maxrec, maxrec_limit),
        snapshots=check_snapshots(parameters),
        max_cost=check_max_cost(parameters),
        uploads=uploads or {},
    )


def check_statement(parameters: Parameters) -> tuple[str, str]:
    """Return language and text of LANG and QUERY."""
    lang = parameters.one("LANG")
    if not lang:
        raise QueryError("LANG is missing", hint="use LANG=ADQL")
    language = LANGUAGES.get(lang.upper())
    if language is None:
        raise QueryError(f"LANG={lang} is not known here", hint=f"known are {', '.join(_spelled())}")
    # The text itself is not stripped: positions in error messages count from its first character.
    texts = [text for text in parameters.values.get("QUERY", ()) if text.strip()]
    if not texts:
        raise QueryError("QUERY is missing", hint="give the statement as QUERY=SELECT ...")
    if len(set(texts)) > 1:
        raise QueryError(f"QUERY is given {len(texts)} times", hint="send one statement in a request")
    return language, texts[0]


def _spelled() -> tuple[str, ...]:
    return tuple(name.replace("STRICT", "strict").replace("DUCKDB", "DuckDB") for name in LANGUAGES)


def _format(parameters: Parameters) -> str:
    return parameters.one("RESPONSEFORMAT") or parameters.one("FORMAT")


def _maxrec(value: str, default: int, limit: int) -> int:
    if not value:
        return min(default, limit)
    if not value.isascii() or not value.isdigit():
        raise QueryError(f"MAXREC={value} is not a number of rows", hint="give a whole number, 0 or larger")
    return min(int(value), limit)


def check_max_cost(parameters: Parameters) -> str:
    """Return the value of MAXCOST. Raise `QueryError` if it is no limit."""
    value = parameters.one("MAXCOST")
    try:
        CostLimit.parse(value)
    except ConfigError as error:
        raise QueryError(f"MAXCOST={value} is no limit of cost", hint=error.hint) from error
    return value


def check_snapshots(parameters: Parameters) -> dict[str, int | str]:
    """Return the snapshot of each catalogue that SNAPSHOT names: a number, a tag or a time."""
    chosen: dict[str, int | str] = {}
    for value in parameters.values.get("SNAPSHOT", ()):
        catalog, _, word = value.strip().partition(":")
        if not catalog or not word:
            raise QueryError(f"SNAPSHOT={value} is not <catalogue>:<number or tag>", hint="for example SNAPSHOT=demo:3")
        version: int | str = int(word) if word.isascii() and word.isdigit() else word
        if chosen.setdefault(catalog, version) != version:
            raise QueryError(f"SNAPSHOT names two snapshots of {catalog}", hint="for both write AT (VERSION => n)")
    return chosen
