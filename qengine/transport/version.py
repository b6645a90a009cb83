"""Which qengine this is, for the handshake between coordinator and workers."""

from __future__ import annotations

from importlib import metadata


def qengine_version() -> str:
    """Return the installed version, or `unknown` when qengine runs from a tree that was never installed."""
    try:
        return metadata.version("qengine")
    except metadata.PackageNotFoundError:
        return "unknown"
