"""Words of a TOML file with their types: every error names the file and the word."""

from __future__ import annotations

import datetime as dt
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qengine.errors import SchemaError


@dataclass(frozen=True, slots=True)
class Words:
    """One table of a TOML file. `where` is its dotted name, empty for the whole file."""

    path: Path
    where: str
    content: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> Words:
        """Read a whole file."""
        try:
            return cls(path, "", tomllib.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise SchemaError(f"{path}: cannot be read: {error}") from error

    def error(self, word: str, message: str, hint: str = "") -> SchemaError:
        """Return an error about one of the words; about the table itself if `word` is empty."""
        name = ".".join(part for part in (self.where, word) if part)
        return SchemaError(f"{self.path}: {name}: {message}", hint=hint)

    def known(self, allowed: Collection[str]) -> None:
        """Refuse words that are not in `allowed`."""
        for word in self.content:
            if word not in allowed:
                raise self.error(word, "is not known", hint=f"known: {', '.join(sorted(allowed))}")

    def section(self, name: str) -> Words:
        """Return a table within this one, empty if it is not there."""
        found = self.content.get(name, {})
        if not isinstance(found, dict):
            raise self.error(name, "must be a table")
        return Words(self.path, f"{self.where}.{name}" if self.where else name, found)

    def sections(self, name: str) -> dict[str, Words]:
        """Return the tables within a table, by name."""
        outer = self.section(name)
        return {inner: outer.section(inner) for inner in outer.content}

    def text(self, name: str, default: str = "") -> str:
        """Return a text; dates count as texts."""
        found = self.content.get(name, default)
        if isinstance(found, dt.date):
            return found.isoformat()
        if not isinstance(found, str):
            raise self.error(name, "must be text")
        return found

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of texts."""
        found = self.content.get(name, [])
        if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
            raise self.error(name, "must be a list of texts")
        return tuple(found)

    def choice(self, name: str, choices: Collection[str], default: str = "") -> str:
        """Return a text that is one of `choices`."""
        found = self.text(name, default)
        if found not in choices:
            raise self.error(name, f"must be one of {', '.join(choices)}", hint=f"it is {found!r}" if found else "")
        return found

    def truth(self, name: str, *, default: bool) -> bool:
        """Return true or false."""
        found = self.content.get(name, default)
        if not isinstance(found, bool):
            raise self.error(name, "must be true or false")
        return found

    def number(self, name: str) -> float | None:
        """Return a number, None if it is not there."""
        found = self.content.get(name)
        if found is None:
            return None
        if isinstance(found, bool) or not isinstance(found, int | float):
            raise self.error(name, "must be a number")
        return float(found)

    def count(self, name: str) -> int | None:
        """Return a whole number of at least 1, None if it is not there."""
        found = self.content.get(name)
        if found is not None and (type(found) is not int or found < 1):
            raise self.error(name, "must be a whole number of at least 1")
        return found
