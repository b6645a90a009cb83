"""Random statements over surface that the tree of `query_ast` does not have: one text for the engine, one for the oracle.

A form is a function that writes its statement with the words of a `Writer`; it is called twice with the same draws, once for each side.
Both sides have the same SQL but for distances (`sky_compare`, `sky_distance`), TOP, and CROSSMATCH, which the oracle is asked for as
the join and the window that it means. Values are compared as multisets with a relative tolerance, so forms choose among rows by keys or
exact values alone: which of two equally near rows is nearest is nobody's promise, how near it is is.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

ARCSEC = 1 / 3600

_POSITIONS = {"Object": ("ra", "dec"), "Source": ("ra", "dec"), "Star": ("raj2000", "dej2000")}
_KEYS = {"Object": "objectId", "Source": "sourceId", "Star": "starId"}
_RADII = (0.5, 2.0, 4.7, 12.9, 28.3, 61.3)


@dataclass(frozen=True, slots=True)
class Wide:
    """One statement for both sides."""

    form: str
    adql: str
    oracle: str


class Writer:
    """The words that differ between the sides, and the draws that do not."""

    def __init__(self, seed: int | str, sky: str, *, is_oracle: bool) -> None:
        self.rng = random.Random(f"wide {seed}")
        self.sky = sky
        self.is_oracle = is_oracle

    def pick(self, *choices: str) -> str:
        """Return one of the texts."""
        return self.rng.choice(choices)

    def table(self, name: str) -> str:
        """Name a table of the sky."""
        return f"{self.sky}.{name}"

    def _places(self, one: tuple[str, str], two: tuple[str, str]) -> str:
        return ", ".join(f"{alias}.{column}" for table, alias in (one, two) for column in _POSITIONS[table])

    def distance(self, one: tuple[str, str], two: tuple[str, str]) -> str:
        """Degrees between rows of two relations, each given as (table, alias)."""
        return f"{'sky_distance' if self.is_oracle else 'DISTANCE'}({self._places(one, two)})"

    def near(self, one: tuple[str, str], two: tuple[str, str], radius: float) -> str:
        """A term: they are not farther from each other than this many degrees."""
        places = self._places(one, two)
        return f"sky_compare({places}, {radius!r}, '<=')" if self.is_oracle else f"DISTANCE({places}) <= {radius!r}"

    def first(self, count: int, rest: str) -> str:
        """SELECT TOP count rest."""
        return f"SELECT {rest} LIMIT {count}" if self.is_oracle else f"SELECT TOP {count} {rest}"

    def term(self, alias: str, *columns: str) -> str:
        """A comparison of one of the columns of numbers with a constant."""
        column = self.pick(*columns)
        return f"{alias}.{column} {self.pick('<', '>=', '<>')} {self.rng.randint(-2, 6)}"

    def where(self, alias: str, *columns: str, chance: float = 0.6) -> str:
        """ " WHERE term", or nothing."""
        return f" WHERE {self.term(alias, *columns)}" if self.rng.random() < chance else ""


Form = Callable[[Writer], str]


def _qualify(w: Writer) -> str:
    order = w.pick("s.flux, s.sourceId", "s.mjd DESC, s.sourceId DESC", "s.flags, s.sourceId") + ", o.objectId"
    rank = f"ROW_NUMBER() OVER (PARTITION BY {w.pick('s.objectId', 'o.objectId', 's.band', 'o.flags, s.band')} ORDER BY {order})"
    join = w.pick("JOIN", "LEFT JOIN")
    return (
        f"SELECT o.objectId, s.sourceId, s.band FROM {w.table('Object')} AS o {join} {w.table('Source')} AS s "
        f"ON s.objectId = o.objectId{w.where('o', 'flags', 'gMag')} QUALIFY {rank} <= {w.rng.choice((1, 2))}"
    )


def _frames(w: Writer) -> str:
    frame = w.pick(
        "ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING",
        "ROWS UNBOUNDED PRECEDING",
        "ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING",
        "ROWS BETWEEN 3 PRECEDING AND 1 PRECEDING",
    )
    call = w.pick("SUM(s.flux)", "COUNT(s.flux)", "MAX(s.mjd)", "FIRST_VALUE(s.flags)", "MIN(s.band)")
    partition = w.pick("s.objectId", "s.band", "s.objectId, s.band")
    return (
        f"SELECT s.sourceId, {call} OVER (PARTITION BY {partition} ORDER BY s.sourceId{w.pick('', ' DESC')} {frame}) AS v "
        f"FROM {w.table('Source')} AS s{w.where('s', 'flags', 'flux')}"
    )


def _grouping_sets(w: Writer) -> str:
    sets = w.pick(
        "GROUPING SETS ((s.band, o.flags), (s.band), ())",
        "ROLLUP (s.band, o.grade)",
        "CUBE (o.flags, s.band)",
        "GROUPING SETS ((o.objectId), (s.band))",
    )
    first, second = {"GROUPING SETS ((s": ("s.band", "o.flags"), "ROLLUP (s.band, o": ("s.band", "o.grade")}.get(
        sets[:17], ("o.flags", "s.band") if sets.startswith("CUBE") else ("o.objectId", "s.band")
    )
    value = w.pick("COUNT(*)", "SUM(s.flux)", "AVG(s.flux)", "COUNT(DISTINCT s.flags)", "MAX(s.mjd)")
    return (
        f"SELECT {first} AS g, {second} AS h, {value} AS v FROM {w.table('Object')} AS o {w.pick('JOIN', 'LEFT JOIN', 'FULL JOIN')} "
        f"{w.table('Source')} AS s ON s.objectId = o.objectId{w.where('o', 'flags', 'rMag')} GROUP BY {sets}"
    )


def _lateral_near(w: Writer) -> str:
    one, two = ("Object", "o"), (w.pick("Star", "Object", "Source"), "n")
    radius = w.rng.choice(_RADII) * ARCSEC
    key = _KEYS[two[0]]
    chosen = w.rng.random()
    near = w.near(one, two, radius)
    count = w.rng.choice((1, 2, 3))
    if chosen < 0.4:
        inner = w.first(
            count, f"{w.distance(one, two)} AS v FROM {w.table(two[0])} AS n WHERE {near} ORDER BY {w.distance(one, two)}"
        )
    elif chosen < 0.8:
        inner = w.first(count, f"n.{key} AS v FROM {w.table(two[0])} AS n WHERE {near} ORDER BY n.{key}{w.pick('', ' DESC')}")
    else:
        inner = f"SELECT COUNT(*) AS v FROM {w.table(two[0])} AS n WHERE {near}"
    join = "CROSS JOIN LATERAL ({}) AS q" if w.rng.random() < 0.5 else "LEFT JOIN LATERAL ({}) AS q ON 1 = 1"
    return f"SELECT o.objectId, q.v FROM {w.table('Object')} AS o {join.format(inner)}{w.where('o', 'flags', 'gMag')}"


def _lateral_key(w: Writer) -> str:
    inner = w.first(
        w.rng.choice((1, 2)),
        f"s.sourceId, s.flux FROM {w.table('Source')} AS s WHERE s.objectId = o.objectId ORDER BY s.sourceId DESC",
    )
    return (
        f"SELECT o.objectId, q.sourceId, q.flux FROM {w.table('Object')} AS o LEFT JOIN LATERAL ({inner}) AS q ON 1 = 1"
        f"{w.where('o', 'flags', 'grade')}"
    )


def _asof(w: Writer) -> str:
    op = w.pick(">=", ">", "<=", "<")
    return (
        f"SELECT f.objectId, f.visit, f.band, f.psfFlux, s.mjd FROM {w.table('Forced')} AS f ASOF {w.pick('JOIN', 'LEFT JOIN')} "
        f"{w.table('Source')} AS s ON s.objectId = f.objectId AND f.visit + {w.rng.choice((58990, 59000, 59004))} {op} s.mjd"
        f"{w.where('f', 'visit', 'psfFlux')}"
    )


def _crossmatch(w: Writer) -> str:
    one, two = w.rng.choice((("Object", "Star"), ("Star", "Object"), ("Source", "Star")))
    radius = w.rng.choice(_RADII)
    how, kind = w.pick("all", "nearest"), w.pick("inner", "left")
    keys = _KEYS[one], _KEYS[two]
    # The key of the nearest is not asked for: two may be equally near.
    wanted = [keys[0], keys[1]] if how == "all" else [keys[0]]
    if not w.is_oracle:
        names = ", ".join(f"x.{name}" for name in wanted)
        call = f"CROSSMATCH({w.table(one)}, {w.table(two)}, {radius!r}, '{how}', '{kind}')"
        return f"SELECT {names}, x.separation_arcsec FROM {call} AS x"
    sides = (one, "a"), (two, "b")
    away = f"{w.distance(*sides)} * 3600"
    join = f"{w.table(one)} AS a {'LEFT ' if kind == 'left' else ''}JOIN {w.table(two)} AS b ON {w.near(*sides, radius * ARCSEC)}"
    if how == "all":
        return f"SELECT a.{keys[0]}, b.{keys[1]}, {away} AS separation_arcsec FROM {join}"
    return f"SELECT a.{keys[0]}, MIN({away}) AS separation_arcsec FROM {join} GROUP BY a.{keys[0]}"


def _sets(w: Writer) -> str:
    def operand() -> str:
        table, column, other = w.rng.choice(
            (
                ("Object", "objectId", "flags"),
                ("Source", "objectId", "flags"),
                ("Forced", "objectId", "visit"),
                ("Spectrum", "star", "snr"),
            )
        )
        return f"SELECT t.{column} AS k FROM {w.table(table)} AS t WHERE {w.term('t', other)}"

    def op() -> str:
        return w.pick("UNION", "UNION ALL", "INTERSECT", "EXCEPT", "EXCEPT ALL", "INTERSECT ALL")

    if w.rng.random() < 0.5:
        return f"({operand()} {op()} {operand()}) {op()} ({operand()} {op()} {operand()})"
    return f"SELECT q.k, COUNT(*) AS n FROM ({operand()} {op()} ({operand()} {op()} {operand()})) AS q GROUP BY q.k"


def _scalars(w: Writer) -> str:
    value = w.pick("COUNT(*)", "MAX(s.flux)", "SUM(s.flux)", "COUNT(DISTINCT s.band)", "AVG(s.flux)")
    tie = w.pick("s.objectId = o.objectId", "s.objectId = o.objectId AND s.flags > o.flags", "s.flags = o.flags AND s.band = 'r'")
    scalar = f"(SELECT {value} FROM {w.table('Source')} AS s WHERE {tie})"
    if w.rng.random() < 0.5:
        return f"SELECT o.objectId, {scalar} AS v FROM {w.table('Object')} AS o{w.where('o', 'flags', 'gMag')}"
    return f"SELECT o.objectId FROM {w.table('Object')} AS o WHERE {scalar} {w.pick('>', '<=', '=')} {w.pick('o.flags', '1', 'o.gMag')}"


def _filters(w: Writer) -> str:
    group = w.pick("", "s.band", "s.objectId", "o.flags")
    items = [f"{group} AS g"] if group else []
    items += [
        f"COUNT(*) FILTER (WHERE {w.term('s', 'flux', 'flags')}) AS a",
        f"SUM(s.flux) FILTER (WHERE {w.term('o', 'gMag', 'grade')}) AS b",
        f"COUNT(DISTINCT {w.pick('s.band', 's.flags', 'o.objectId')}) AS c",
        f"COUNT(DISTINCT {w.pick('o.grade', 's.mjd', 's.objectId')}) AS d",
    ]
    return (
        f"SELECT {', '.join(items)} FROM {w.table('Object')} AS o {w.pick('JOIN', 'RIGHT JOIN')} {w.table('Source')} AS s "
        f"ON s.objectId = o.objectId{w.where('s', 'flags', 'flux')}{f' GROUP BY {group}' if group else ''}"
    )


def _distinct_counts(w: Writer) -> str:
    columns = w.rng.sample(("objectId", "flags", "band", "flux", "mjd"), 3)
    items = ", ".join(f"COUNT(DISTINCT s.{column}) AS c{i}" for i, column in enumerate(columns))
    more = w.pick("SUM(s.flux)", "AVG(s.flux)", "COUNT(*)", "MAX(s.band)")
    return f"SELECT {items}, {more} AS v FROM {w.table('Source')} AS s{w.where('s', 'flags', 'flux', 'mjd')}"


def _values(w: Writer) -> str:
    rows = ", ".join(f"({w.rng.randint(0, 8)}, '{w.pick('u', 'g', 'r', 'zz')}')" for _ in range(w.rng.randint(1, 5)))
    values = f"(VALUES {rows}) AS v(i, t)"
    join = w.pick("JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN")
    on = w.pick("s.flags = v.i", "s.band = v.t", "s.flags = v.i AND s.band = v.t")
    if w.rng.random() < 0.5:
        return f"SELECT s.sourceId, v.i, v.t FROM {w.table('Source')} AS s {join} {values} ON {on}"
    return f"SELECT v.i, COUNT(*) AS n, SUM(s.flux) AS f FROM {w.table('Source')} AS s {join} {values} ON {on} GROUP BY v.i"


def _union_groups(w: Writer) -> str:
    third = f" UNION ALL SELECT o.objectId, o.gMag FROM {w.table('Object')} AS o"
    union = (
        f"(SELECT s.objectId AS k, s.flux AS v FROM {w.table('Source')} AS s{w.where('s', 'flags', 'mjd')} UNION ALL "
        f"SELECT f.objectId, f.psfFlux FROM {w.table('Forced')} AS f{w.where('f', 'visit')}"
        f"{w.pick('', third)}) AS u"
    )
    value = w.pick("COUNT(*)", "SUM(u.v)", "AVG(u.v)", "MAX(u.v)", "COUNT(DISTINCT u.v)", "STDDEV(u.v)")
    if w.rng.random() < 0.3:
        return f"SELECT {value} AS x, COUNT(*) AS n FROM {union}"
    having = w.pick("", " HAVING COUNT(*) > 1")
    return f"SELECT u.k, {value} AS x FROM {union}{w.where('u', 'v', chance=0.3)} GROUP BY u.k{having}"


FORMS: Sequence[Form] = (
    _qualify, _frames, _grouping_sets, _lateral_near, _lateral_key, _asof, _crossmatch, _sets, _scalars, _filters, _distinct_counts,
    _values, _union_groups,
)  # fmt: skip


def wide(seed: int, sky: str) -> Wide:
    """Return the statement of a seed; seeds take the forms in turn."""
    form = FORMS[seed % len(FORMS)]
    return Wide(
        form=form.__name__.strip("_"),
        adql=form(Writer(seed, sky, is_oracle=False)),
        oracle=form(Writer(seed, sky, is_oracle=True)),
    )
