"""Match tables whose directors are in other catalogues: whether these are still as the pairs were placed by.

A load that changes a director moves what lies by it in its own catalogue in the same transaction, and a snapshot holds one
catalogue. So a match table knows the places that directors of other catalogues had when it was loaded, and it says which these were
(`Match.own_places`, `Match.places`: a name of the director's key index, by which pairs are placed). A query may read other places:
the other catalogue has been loaded since, or one of the two is read at an older snapshot. Then nothing says where the rows of a key
are, so `trusted` takes the table out of the director's family: equal keys and small distances prove nothing any more, and the join
is done as one of two families is. The answer is the same, later. `qengine refresh` places the pairs anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import replace

from qengine.catalog.model import Catalog, Match, TableSnapshot

_LOST = "@elsewhere"
"""What the name of a family that a match table has lost ends with; no director has such a name."""


def places_of(director: TableSnapshot | None) -> str:
    """Return a name of the places of the director's keys; empty if it has no index of them."""
    if director is None or director.key_index is None:
        return ""
    index = director.key_index
    return hashlib.sha256("\n".join([str(index.rows), *index.digest]).encode()).hexdigest()[:32]


def moved(snapshot: TableSnapshot, catalog: Catalog) -> tuple[str, ...]:
    """Return the directors (full names) in other catalogues that are not where the pairs of a match table were placed by."""
    return tuple(_moved(snapshot, catalog))


def trusted(catalog: Catalog) -> Catalog:
    """Return the catalogue with match tables taken out of the families whose places they do not know."""
    changed = {one.table.full_name: found for one in catalog if one.table.match is not None and (found := moved(one, catalog))}
    if not changed:
        return catalog
    return Catalog(tuple(_without(one, changed.get(one.table.full_name, ())) for one in catalog))


def warnings(tables: Iterable[tuple[str, str]], catalog: Catalog) -> tuple[str, ...]:
    """Return what EXPLAIN says of these tables (schema, name) of a catalogue that is trusted."""
    found = []
    for schema, name in dict.fromkeys(tables):
        snapshot = catalog.find(schema, name)
        if snapshot is None or snapshot.table.match is None:
            continue
        lost = [family.removesuffix(_LOST) for family in _families(snapshot) if family.endswith(_LOST)]
        if lost:
            remedy = "" if "@" in schema else f"; qengine refresh {snapshot.table.schema} {snapshot.table.name} places them anew"
            found.append(
                f"the pairs of {snapshot.table.full_name} were placed by another state of {' and '.join(lost)}, so they are joined "
                f"without their places{remedy}"
            )
    return tuple(found)


def _families(snapshot: TableSnapshot) -> tuple[str, ...]:
    table = snapshot.table
    return (table.family, table.match.family) if table.match is not None else ()


def _moved(snapshot: TableSnapshot, catalog: Catalog) -> Iterator[str]:
    table, match = snapshot.table, snapshot.table.match
    if match is None:
        return
    for family, places in ((table.family, match.own_places), (match.family, match.places)):
        schema, _, name = family.partition(".")
        if schema.lower() != table.schema.lower() and places_of(catalog.find(schema, name)) != places:
            yield family


def _without(snapshot: TableSnapshot, families: tuple[str, ...]) -> TableSnapshot:
    if not families:
        return snapshot

    def name(family: str) -> str:
        return family + _LOST if family in families else family

    def lost(match: Match | None) -> Match | None:
        return None if match is None else replace(match, family=name(match.family))

    table = replace(snapshot.table, family=name(snapshot.table.family), match=lost(snapshot.table.match))
    return replace(snapshot, table=table, other=None if snapshot.other is None else _without(snapshot.other, families))
