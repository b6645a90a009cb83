"""A sidecar for a schema that has none: what UCDs and foreign keys say about how its tables are sharded, for a person to confirm.

* The own position of a table are the columns with the UCDs `pos.eq.ra;meta.main` and `pos.eq.dec;meta.main`, exactly. Columns with
  the usual names may be it, which is a question.
* A table with a position and a key of one column may be a director. A table without a key of its own that names such a table by a
  foreign key is its child; one that names two of them and has no position is a match table.
* A table without a position that names no director is replicated.

Where more than one answer is possible the kind is written as a question mark, which no load accepts, with the choices beside it.
The whole is not confirmed: a load refuses it until somebody has read it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from qengine.catalog.model import Column, ForeignKey, Table

RA_UCD = "pos.eq.ra;meta.main"
DEC_UCD = "pos.eq.dec;meta.main"

_USUAL = (("ra", "dec"), ("coord_ra", "coord_dec"), ("ra", "decl"), ("RA", "DEC"), ("raj2000", "dej2000"), ("RAJ2000", "DEJ2000"))
_PM_RA = ("pos.pm;pos.eq.ra", "pos.pm;pos.eq.ra;meta.main")
_PM_DEC = ("pos.pm;pos.eq.dec", "pos.pm;pos.eq.dec;meta.main")
_UNSURE = "?"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What a schema says of one table."""

    table: Table
    ra: str = ""
    dec: str = ""
    note: str = ""
    is_sure: bool = True

    @property
    def may_be_director(self) -> bool:
        return bool(self.ra and self.table.key and not self.note)


def propose(tables: Sequence[Table], *, schema: str = "") -> str:
    """Return the text of a sidecar for these tables. `schema` is where their Felis file is, empty if it lies beside."""
    found = {table.name: _position(table) for table in tables}
    lines = ["# Proposed from UCDs and foreign keys. Read it, answer the question marks, and then say: confirmed = true", ""]
    lines += [f"schema = {json.dumps(schema)}"] if schema else []
    lines += ["confirmed = false", "", "[position]", 'frame = "icrs"', 'unit = "deg"', "# epoch = 2016.0", ""]
    for table in tables:
        lines += [*_table(found[table.name], found), ""]
    return "\n".join(lines)


def _table(one: _Found, found: dict[str, _Found]) -> Iterable[str]:
    table = one.table
    yield f"[tables.{_word(table.name)}]"
    directors = [key for key in table.foreign_keys if len(key.columns) == 1 and _names_director(key, found, table)]
    kind, note = _kind(one, directors)
    yield f'kind = "{kind}"' + (f"  # {note}" if note else "")
    child = [f"director = {json.dumps(key.target)}\ndirector_key = {json.dumps(key.columns[0])}" for key in directors]
    if kind == "match":
        for side, key in zip(("left", "right"), directors, strict=False):
            yield f"{side} = {json.dumps(f'{key.target}.{key.columns[0]}')}"
    elif kind == "child":
        yield child[0]
    elif kind == _UNSURE:
        for each in child:
            yield "\n".join(f"# {line}" for line in each.splitlines())
    if not table.key and one.ra:
        yield 'key = "none"  # no primary key of one column is declared'
    if one.ra:
        yield f"ra = {json.dumps(one.ra)}" + (f"  # {one.note}" if one.note else "")
        yield f"dec = {json.dumps(one.dec)}"
    elif one.note:
        yield f"# {one.note}"
    pm = [next((c.name for c in table.columns if c.ucd in ucds), "") for ucds in (_PM_RA, _PM_DEC)]
    if all(pm):
        yield f"pmra = {json.dumps(pm[0])}  # is it times cos dec?\npmdec = {json.dumps(pm[1])}"
    if times := [column for column in table.columns if _is_mjd(column)]:
        words = ", ".join(f'{_word(c.name)} = {{ scale = "{_scale(c)}", origin = "mjd", format = "mjd" }}' for c in times)
        guessed = [c.name for c in times if not _says_scale(c)]
        yield f"time = {{ {words} }}" + (f"  # nothing says the scale of {', '.join(guessed)}" if guessed else "")


def _kind(one: _Found, directors: Sequence[ForeignKey]) -> tuple[str, str]:
    """Return the kind and what a person should think about."""
    targets = list(dict.fromkeys(key.target for key in directors))
    if not one.is_sure:
        return _UNSURE, "which columns are its position?"
    if not targets:
        if one.may_be_director:
            return "director", "or replicated, if it is small and every worker may have it"
        if one.ra:
            return _UNSURE, "replicated, or director" + ("" if one.table.key else ": that needs a unique key")
        return "replicated", "nothing says where its rows lie"
    if len(targets) == 2 and not one.ra:
        return "match", ""
    if len(targets) > 1:
        return _UNSURE, f"child of {' or '.join(targets)}"
    if one.may_be_director:
        return _UNSURE, f"director, or child of {targets[0]}"
    return "child", ""


def _names_director(key: ForeignKey, found: dict[str, _Found], table: Table) -> bool:
    target = found.get(key.target)
    return (
        target is not None and target.table is not table and target.may_be_director and key.target_columns == (target.table.key,)
        and not any(_points_on(other, found) for other in target.table.foreign_keys)
    )  # fmt: skip


def _points_on(key: ForeignKey, found: dict[str, _Found]) -> bool:
    """Say whether a foreign key names a table that may be a director: then the one that has it may be a child itself."""
    target = found.get(key.target)
    return target is not None and target.may_be_director


def _position(table: Table) -> _Found:
    by_ucd = [[c.name for c in table.columns if c.ucd == ucd] for ucd in (RA_UCD, DEC_UCD)]
    if len(by_ucd[0]) == len(by_ucd[1]) == 1:
        return _Found(table=table, ra=by_ucd[0][0], dec=by_ucd[1][0])
    if by_ucd[0] or by_ucd[1]:
        names = ", ".join((*by_ucd[0], *by_ucd[1]))
        return _Found(table=table, note=f"the UCDs of a main position are on {names}", is_sure=False)
    for ra, dec in _USUAL:
        first, second = table.column(ra), table.column(dec)
        if first is not None and second is not None and first.type.is_float and second.type.is_float:
            return _Found(table=table, ra=ra, dec=dec, note=f"by its name: no column has the UCD {RA_UCD}")
    return _Found(table=table)


def _is_mjd(column: Column) -> bool:
    return column.type.is_float and "mjd" in column.name.lower()


def _says_scale(column: Column) -> bool:
    text = f"{column.name} {column.description}".lower()
    return any(scale in text for scale in ("tai", "tdb", "utc")) or "terrestrial time" in text


def _scale(column: Column) -> str:
    text = f"{column.name} {column.description}".lower()
    return next((scale for scale in ("tai", "tdb", "utc") if scale in text), "tt" if "terrestrial time" in text else "utc")


def _word(name: str) -> str:
    """Return a name as a key of TOML."""
    return name if name.replace("_", "").isalnum() and name.isascii() else json.dumps(name)
