"""Settings from a file and the environment, for frozen dataclasses that live with their owners.

A file is TOML with one table per section; the environment overrides it as `QENGINE_<SECTION>__<NAME>`:

    [tap]                          QENGINE_TAP__MAXREC=5000
    maxrec = 5000

This module knows no section: `app.py` names them, with the dataclass that each fills. What nobody asked for is an error, so
that a misspelt setting cannot pass unnoticed. Only numbers, texts, booleans, paths and tuples of these can be set.
"""

from __future__ import annotations

import dataclasses
import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from qengine.errors import ConfigError

PREFIX = "QENGINE_"
_PLAIN_VARIABLES = ("QENGINE_CONFIG", "QENGINE_STORE", "QENGINE_URL", "QENGINE_NEAR", "QENGINE_REGISTRY", "QENGINE_TOKEN")
"""Variables with this prefix that are not settings: they stand for command-line options."""

_TRUE = ("1", "true", "yes", "on")
_FALSE = ("0", "false", "no", "off")

T = TypeVar("T")


class Config:
    """Raw settings by section. Fill dataclasses from it, then call `finish`."""

    def __init__(self, sections: Mapping[str, Mapping[str, Any]], origin: str) -> None:
        self._sections = {name: dict(values) for name, values in sections.items()}
        self._origin = origin
        self._asked: set[str] = set()

    @classmethod
    def read(cls, path: Path | None, environment: Mapping[str, str]) -> Config:
        """Return the settings of the file at `path` (None: no file) under those of `environment`."""
        sections: dict[str, dict[str, Any]] = {}
        if path is not None:
            try:
                content = tomllib.loads(path.read_text())
            except OSError as error:
                raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
            except tomllib.TOMLDecodeError as error:
                raise ConfigError(f"{path} is not TOML: {error}") from error
            for name, values in content.items():
                if not isinstance(values, dict):
                    raise ConfigError(f"{path}: {name} is outside of any section", hint=f"put it below a line like [{name}]")
                sections[name] = values
        for variable, value in environment.items():
            if not variable.startswith(PREFIX) or variable in _PLAIN_VARIABLES:
                continue
            section, separator, name = variable.removeprefix(PREFIX).lower().partition("__")
            if separator and name:
                sections.setdefault(section, {})[name] = value
        return cls(sections, str(path) if path is not None else "the environment")

    def fill(self, section: str, kind: type[T]) -> T:
        """Return `kind` with the values of `section`; what is not set keeps its default."""
        self._asked.add(section)
        hints = typing.get_type_hints(kind)
        names = [field.name for field in dataclasses.fields(kind) if field.init]  # type: ignore[arg-type]
        values = {}
        for name, value in self._sections.get(section, {}).items():
            if name not in names:
                raise ConfigError(f"{section}.{name} is not a setting", hint=f"[{section}] knows {', '.join(sorted(names))}")
            values[name] = _converted(value, hints[name], f"{section}.{name}")
        try:
            return kind(**values)
        except TypeError as error:
            raise ConfigError(f"[{section}] is incomplete: {error}") from error

    def finish(self) -> None:
        """Raise `ConfigError` if there is a section that nobody asked for."""
        if unknown := sorted(set(self._sections) - self._asked):
            known = ", ".join(sorted(self._asked))
            raise ConfigError(f"{self._origin}: [{unknown[0]}] is not a section", hint=f"known are {known}")


def _converted(value: Any, hint: Any, name: str) -> Any:
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        return _converted(value, next(kind for kind in typing.get_args(hint) if kind is not type(None)), name)
    if origin is tuple:
        items = [item.strip() for item in value.split(",") if item.strip()] if isinstance(value, str) else value
        if not isinstance(items, list):
            raise ConfigError(f"{name} must be a list, not {value!r}")
        return tuple(_converted(item, typing.get_args(hint)[0], name) for item in items)
    if hint is bool:
        return _boolean(value, name)
    if hint in (int, float):
        return _number(value, hint, name)
    if hint in (str, Path) and isinstance(value, str):
        return hint(value)
    raise ConfigError(f"{name} cannot be {value!r}", hint=f"expected {getattr(hint, '__name__', hint)}")


def _boolean(value: Any, name: str) -> bool:
    word = str(value).lower()
    if word in _TRUE + _FALSE:
        return word in _TRUE
    raise ConfigError(f"{name} must be true or false, not {value!r}")


def _number(value: Any, kind: type[Any], name: str) -> Any:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if is_number or isinstance(value, str):
        try:
            number = kind(value)
        except (ValueError, OverflowError):
            number = None
        if number is not None and (isinstance(value, str) or number == value):
            return number
    raise ConfigError(f"{name} must be {'a whole number' if kind is int else 'a number'}, not {value!r}")
