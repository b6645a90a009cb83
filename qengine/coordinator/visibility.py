"""What is published, as an identity may read it (`catalog.rights.visible`), for each query.

Narrowing a catalogue means to make TAP_SCHEMA anew, which takes longer than planning a small query. So what was made is kept, for
each catalogue that the registry gives out and each set of rights that makes a difference: most users share one.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from qengine.catalog.model import Catalog, Table
from qengine.catalog.rights import Rights, user_catalog, visible
from qengine.catalog.who import Identity
from qengine.errors import QEngineError, UnknownSnapshotError
from qengine.sql.parse import parse, table_names
from qengine.sql.views import LANGUAGE

_KEPT = 64


class CatalogSource(Protocol):
    """Who knows what is published: the registry."""

    def catalog(self, *, snapshots: Mapping[str, int | str] | None = None) -> Catalog: ...


class Visibility:
    """Gives out catalogues of `source`, narrowed to what `rights` let an identity read; without rights, to nothing less than all.

    May be used by several threads.
    """

    def __init__(self, source: CatalogSource, rights: Callable[[], Rights] | None) -> None:
        self._source = source
        self._rights = rights
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[int, int, frozenset[str]], tuple[Catalog, Rights, Catalog]] = OrderedDict()

    def catalog(self, identity: Identity, snapshots: Mapping[str, int | str] | None = None) -> Catalog:
        """Return what an identity may read, at the latest snapshots or at those named. Raise `UnknownSnapshotError` for a catalogue
        that is not there for them."""
        if identity.is_admin or self._rights is None:
            return self._source.catalog(snapshots=snapshots)
        rights = self._rights()
        if snapshots:
            # Before the registry is asked, whose errors tell of snapshots and tags.
            there = {one.table.schema.lower() for one in self._narrowed(self._source.catalog(), identity, rights)}
            for name in snapshots:
                if name.lower() not in there:
                    raise UnknownSnapshotError(f"there is no catalogue {name}")
        return self._narrowed(self._source.catalog(snapshots=snapshots), identity, rights)

    def _narrowed(self, catalog: Catalog, identity: Identity, rights: Rights) -> Catalog:
        subjects = rights.subjects(identity)
        own = user_catalog(identity.user) if identity.user else ""
        if own and any(one.table.schema.lower() == own for one in catalog):
            subjects |= {own}
        key = (id(catalog), id(rights), subjects)
        with self._lock:
            if (found := self._kept.get(key)) is not None:  # it holds both, so that their ids stay theirs
                self._kept.move_to_end(key)
                return found[2]
        made = visible(catalog, identity, rights, _named_by)
        with self._lock:
            self._kept[key] = catalog, rights, made
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return made


def _named_by(view: Table) -> Iterable[tuple[str, str]] | None:
    try:
        return table_names(parse(view.view, LANGUAGE))
    except QEngineError:
        return None
