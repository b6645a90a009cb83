"""Reads bench/queries/*.sql: `-- class: ..` and what it measures, the ADQL statement, `-- bare` and the same for DuckDB."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of an acceptance class. `bare` is the ADQL text itself where DuckDB understands it."""

    name: str
    kind: str
    adql: str
    bare: str


def statements(*kinds: str) -> list[Statement]:
    """Return the statements of some classes, by file name."""
    found = []
    for path in sorted((Path(__file__).parent / "queries").glob("*.sql")):
        head, _, text = path.read_text().partition("\n")
        adql, _, bare = text.partition("-- bare\n")
        kind = head.removeprefix("-- class:").split(",")[0].strip()
        if kind in kinds:
            found.append(Statement(path.stem, kind, adql.strip(), (bare or adql).strip()))
    return found
