"""Disk budgets: what a catalogue or the whole store may take, and whether there is room at all.

A load is asked twice: before it begins, with the bytes of its inputs as an estimate, and before it publishes, when its files are on
the disk. A budget counts files once, however many links they have.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from qengine.catalog.registry import Registry
from qengine.errors import LimitError
from qengine.loader.collect import taken_bytes


def check_room(root: Path, registry: Registry, catalog: str, more: int) -> None:
    """Raise `LimitError` if `more` bytes would exceed a budget, or do not fit onto the disk."""
    for name, allowed in registry.releases.budgets().items():
        if name and name.lower() != catalog.lower():
            continue
        used = taken_bytes(registry.files, root / catalog if name else root)
        if used + more > allowed:
            raise LimitError(
                f"{name or 'the store'} may take {_shown(allowed)}, and {_shown(used)} are used"
                + (f"; this load needs about {_shown(more)}" if more else " with this load"),
                hint="nothing is published; expire and collect snapshots, or raise the budget (qengine budget)",
            )
    free = shutil.disk_usage(root).free
    if more > free:
        raise LimitError(
            f"this load needs about {_shown(more)}, and the disk has {_shown(free)} left", hint="make room, or use another disk"
        )


def _shown(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 10**9 else f"{count / 1e6:,.1f} MB" if count >= 10**6 else f"{count / 1e3:,.1f} kB"
