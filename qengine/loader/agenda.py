"""What a commit is to do, from what was contributed and what is there already.

An input whose label and version are in the table already is skipped; a new version of a label takes the place of the old one,
whose rows go away. The rest is new. What a commit reads, and must find unchanged when it publishes, are the tables that were
contributed to, those that lie where their rows lie, and the directors by which their rows are placed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from qengine.catalog.inputs import InputRecord
from qengine.catalog.loads import Load
from qengine.catalog.model import LAYOUT, Catalog, TableKind
from qengine.loader.change import InputSource, TableChange
from qengine.loader.definition import declared_kind
from qengine.loader.receipt import Contributed, open_again
from qengine.loader.request import LoadReport, LoadRequest

Asked = Mapping[str, tuple[LoadRequest, tuple[Contributed, ...]]]
"""Table -> what is asked for, and its inputs in order."""

_LATER = {TableKind.CHILD: 1, TableKind.MATCH: 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """What is to be done to one table: inputs to add, inputs whose rows go away, and how many were there already; or to write
    ranges with many or small parts anew (`is_compact`), or to place pairs anew (`is_refresh`)."""

    request: LoadRequest
    new: tuple[Contributed, ...]
    replaced: tuple[InputRecord, ...]
    skipped: int
    is_compact: bool = False
    is_refresh: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Agenda:
    """What is to be done to all tables of a load."""

    catalog: str
    items: tuple[Item, ...]

    @property
    def digest(self) -> str:
        """Return a name of all of it: work that was done for another agenda cannot go on."""
        words = [
            {
                "request": item.request.to_json(),
                "new": [[one.label, one.version] for one in item.new],
                "replaced": [[one.load, one.number] for one in item.replaced],
                "is_compact": item.is_compact,
                "is_refresh": item.is_refresh,
            }
            for item in self.items
        ]
        return hashlib.sha256(json.dumps(words, sort_keys=True).encode()).hexdigest()

    @property
    def input_bytes(self) -> int:
        """Return the bytes of all inputs that are to be read."""
        return sum(one.bytes for item in self.items for one in item.new)

    def changes(self, load: Load, base: Catalog) -> list[TableChange]:
        """Return the changes, those of directors before those of tables that lie where their rows lie."""
        found = []
        for item in sorted(self.items, key=lambda item: _LATER.get(_kind(item.request, base), 0)):
            table = item.request.table
            inputs = tuple(
                InputSource(
                    source=open_again(one), record=one.record(load=load.number, catalog=load.catalog, table=table, number=number)
                )
                for number, one in enumerate(item.new)
            )
            if inputs or item.is_compact or item.is_refresh:
                found.append(TableChange(request=item.request, inputs=inputs, replaced=item.replaced, is_compact=item.is_compact))
        return found

    def reports(self, made: Sequence[LoadReport], load: str) -> list[LoadReport]:
        """Return the reports of all tables: those of changes, and that nothing was new for others."""
        done = {one.table: one for one in made}
        asked = {item.request.table: item for item in self.items}
        done |= {table: LoadReport.nothing(self.catalog, table) for table in asked if table not in done}
        return [
            replace(
                one, load=load, skipped_inputs=asked[table].skipped if table in asked else 0,
                replaced_inputs=len(asked[table].replaced) if table in asked else 0,
            )
            for table, one in done.items()
        ]  # fmt: skip

    def read_by(self, base: Catalog) -> tuple[set[str], tuple[str, ...]]:
        """Return the tables that the commit reads (full names in lower case) and the families that no table may join meanwhile."""
        names: set[str] = set()
        families: set[str] = set()
        for item in self.items:
            request = item.request
            names |= {f"{self.catalog}.{name}" for name in kin(base, self.catalog, request.table)}
            found = base.find(self.catalog, request.table)
            if found is not None:
                own = {found.table.family, *([found.table.match.family] if found.table.match is not None else [])} - {""}
                names |= own  # a family is called by its director
                if found.table.kind is TableKind.DIRECTOR:
                    families |= own
            sides = [side.rpartition(".")[0] for side in (request.left, request.right) if side]
            for director in (request.director, *sides):
                if director:
                    names.add(director if "." in director else f"{self.catalog}.{director}")
        return {name.lower() for name in names}, tuple(sorted(families))


def agenda_of(
    asked: Asked, live: Sequence[InputRecord], catalog: str, *, compact: Sequence[str] = (), refresh: Sequence[str] = (),
    allow_orphans: bool = False,
) -> Agenda:  # fmt: skip
    """Return what is to be done. `live` are the inputs whose rows are in the catalogue, `compact` tables to write anew where they
    have many or small parts, `refresh` match tables to place anew."""
    known = {(one.table.lower(), one.label): one for one in live}
    items = []
    for table, (request, inputs) in asked.items():
        before = [known.get((table.lower(), one.label)) for one in inputs]
        new = [(one, was) for one, was in zip(inputs, before, strict=True) if was is None or was.version != one.version]
        items.append(
            Item(
                request=request,
                new=tuple(one for one, _ in new),
                replaced=tuple(was for _, was in new if was is not None),
                skipped=len(inputs) - len(new),
            )
        )
    for table in compact:
        if table not in asked:
            request = LoadRequest(catalog=catalog, table=table)
            items.append(Item(request=request, new=(), replaced=(), skipped=0, is_compact=True))
    for table in refresh:
        if table not in asked and table not in compact:
            request = LoadRequest(catalog=catalog, table=table, allow_orphans=allow_orphans)
            items.append(Item(request=request, new=(), replaced=(), skipped=0, is_refresh=True))
    return Agenda(catalog=catalog, items=tuple(items))


def kin(base: Catalog, catalog: str, table: str) -> set[str]:
    """Return the table's name and, of a director, those of the tables that lie where its rows lie."""
    found = base.find(catalog, table)
    if found is None or found.table.kind is not TableKind.DIRECTOR:
        return {table}
    family = found.table.family
    others = (one.table for one in base if one.table.schema == catalog and not one.table.name.endswith(LAYOUT))
    return {table, *(one.name for one in others if one.family == family or (one.match is not None and one.match.family == family))}


def _kind(request: LoadRequest, base: Catalog) -> TableKind:
    found = base.find(request.catalog, request.table)
    if found is not None:
        return found.table.kind
    if request.kind is not None:
        return request.kind
    if request.left:
        return TableKind.MATCH
    return TableKind.CHILD if request.director else declared_kind(request)
