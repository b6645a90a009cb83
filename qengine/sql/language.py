"""The three profiles of the one language, and what they differ in (architecture, section 7)."""

from __future__ import annotations

from dataclasses import dataclass

from qengine.errors import QuerySyntaxError


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """What a profile allows and means.

    `has_extensions`: syntax and functions beyond ADQL 2.1 are taken; `needs_warning`: each use of one is named in a warning;
    `has_sql_meaning`: where ADQL and DuckDB differ, DuckDB's meaning holds (`/`, LOG, ordinals in GROUP BY, bare booleans).
    """

    name: str
    has_extensions: bool
    needs_warning: bool
    has_sql_meaning: bool

    @property
    def is_strict(self) -> bool:
        return not self.has_extensions


LANGUAGES = {
    "adql-strict": Language(name="adql-strict", has_extensions=False, needs_warning=False, has_sql_meaning=False),
    "adql": Language(name="adql", has_extensions=True, needs_warning=True, has_sql_meaning=False),
    "sql": Language(name="sql", has_extensions=True, needs_warning=False, has_sql_meaning=True),
}


def language_of(name: str) -> Language:
    """Return the profile of this name; raise `QuerySyntaxError` if there is none."""
    found = LANGUAGES.get(name.lower())
    if found is None:
        raise QuerySyntaxError(f"there is no query language '{name}'", hint=f"use one of {', '.join(LANGUAGES)}")
    return found
