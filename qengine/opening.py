"""Opening a store with its registry: all that a load needs of the composition, without the engine that `app` puts together."""

from __future__ import annotations

from pathlib import Path

from qengine.catalog.registry import Registry
from qengine.storage import place
from qengine.storage.objects import Store


def open_store(
    root: Path | str, *, create: bool = False, registry_url: str | None = None, is_rebuilding: bool = False
) -> tuple[Store, Registry]:
    """Return store and registry under `root`, a directory or `s3://bucket/prefix` (`storage.place`).

    Raise `ConfigError` if there is none and `create` is not set.
    """
    url = registry_url or place.registry_url(root)
    store = place.open_place(root, url=url, create=create, is_rebuilding=is_rebuilding)
    return store, Registry.open(store.root, url=url, far=store.far)
