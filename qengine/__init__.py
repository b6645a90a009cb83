"""qengine: a distributed SQL engine for astronomical catalogues."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qengine.app import connect
    from qengine.sql.parse import parse_adql

try:
    __version__ = version("qengine")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0"

__all__ = ["__version__", "connect", "parse_adql"]


def __getattr__(name: str) -> Any:
    """Import the public names when they are first used: a worker that imports `qengine` must not load the coordinator."""
    if name == "connect":
        from qengine.app import connect

        return connect
    if name == "parse_adql":
        from qengine.sql.parse import parse_adql

        return parse_adql
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
