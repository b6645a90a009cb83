"""Opening a store by what an operator calls it: a directory, or `s3://bucket/prefix` with a near copy on this machine.

The near copy of a bucket holds what this machine has made or read lately, the locks and journals of its loads, and the registry if
no database is named (`QENGINE_REGISTRY`, a URL of SQLAlchemy's). It lies below `QENGINE_NEAR` (default: `~/.local/share/qengine`),
by a name made of the address and the endpoint, as other endpoints have other buckets of the same name.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

from qengine.catalog import durable
from qengine.errors import ConfigError
from qengine.storage.bucket import Bucket, BucketFiles, bucket_address, is_bucket
from qengine.storage.objects import Store

_REGISTRY = "registry.sqlite"
_NAME = "registry.name"
_NEAR = "near-copy-of"


def registry_url(store: Path | str) -> str | None:
    """Return the URL of the registry of a store in a bucket, None if it lies in the near copy. A directory has its own."""
    return os.environ.get("QENGINE_REGISTRY") or None if is_bucket(store) else None


def open_place(place: Path | str, *, url: str | None, create: bool, is_rebuilding: bool = False) -> Store:
    """Return the store of this name, whose registry is at `url` or, if that is None, in its directory.

    `create` makes the directory. Raise `ConfigError` if there is no store, or it has another registry; `is_rebuilding` says that
    this registry takes its place.
    """
    if is_bucket(place):
        return _open_bucket(bucket_address(place), url, create=create, is_rebuilding=is_rebuilding)
    path = Path(place).expanduser().resolve()
    if (path / _NEAR).is_file():
        raise ConfigError(f"{path} is a near copy, not a store", hint=f"use --store {(path / _NEAR).read_text()}")
    if create:
        path.mkdir(parents=True, exist_ok=True)
    elif not path.is_dir() or (url is None and not (path / _REGISTRY).is_file()):
        # Opening a registry makes one, which must not happen in a directory that was named by mistake.
        raise ConfigError(f"there is no store at {place}", hint="qengine load makes one, or check --store")
    return Store(path)


def near_folder(address: str, purpose: str = "near") -> Path:
    """Return where the near copy of a bucket lies on this machine."""
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    base = Path(os.environ.get("QENGINE_NEAR") or Path(home) / "qengine")
    mark = hashlib.sha256(f"{os.environ.get('AWS_ENDPOINT_URL', '')} {address}".encode()).hexdigest()[:12]
    return base.expanduser().absolute() / purpose / (re.sub(r"[^A-Za-z0-9]+", "-", address.removeprefix("s3://")) + f"-{mark}")


def parts_place(store: Store) -> tuple[Path, str]:
    """Return where workers of this machine find the parts of a store: its directory, or a cache and the address that fills it."""
    return (store.root, "") if store.far is None else (near_folder(store.files.place, "cache"), store.files.place)


def cache_place(address: Path | str) -> tuple[Path, str]:
    """Return the directory of a store or of a cache, and the address that fills the cache."""
    if not is_bucket(address):
        return Path(address).expanduser().resolve(), ""
    far = bucket_address(address)
    return near_folder(far, "cache"), far


def _open_bucket(address: str, url: str | None, *, create: bool, is_rebuilding: bool) -> Store:
    near = near_folder(address)
    has_registry = url is not None or (near / _REGISTRY).is_file()
    files = BucketFiles(near, Bucket(address))
    owner = files.owner()
    if not create and not has_registry:
        hint = "set QENGINE_REGISTRY to its registry, or make one here with `qengine registry rebuild`"
        raise ConfigError(
            f"there is no store at {address}" if owner is None else f"the registry of {address} is not on this machine",
            hint="qengine load makes one, or check --store and AWS_ENDPOINT_URL" if owner is None else hint,
        )
    if is_rebuilding and next(files.bucket.list(), None) is None:
        raise ConfigError(f"{address} holds no snapshots to restore a registry from", hint="check --store and AWS_ENDPOINT_URL")
    near.mkdir(parents=True, exist_ok=True)
    if not (near / _NEAR).is_file():
        with durable.writing(near / _NEAR) as temporary:
            temporary.write_text(address)
    files.claim(_named(url, near), is_taking_over=is_rebuilding)
    return Store(near, files)


def _named(url: str | None, near: Path) -> str:
    """Return what a registry is called in its store: by address without user and password, or by machine and a mark of its own."""
    if url is not None:
        parts = urlsplit(url)
        host = f"{parts.hostname or ''}:{parts.port}" if parts.port else parts.hostname or ""
        return f"{parts.scheme.partition('+')[0]}://{host}{parts.path}"
    path = near / _NAME
    if not path.is_file():
        with durable.writing(path) as temporary:
            temporary.write_text(f"{socket.gethostname()}:{near} {uuid4().hex[:8]}")
    return path.read_text()
