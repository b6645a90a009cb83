"""What may be called: names, arities, kinds of arguments, result types, and the DuckDB function that does it.

A function that is not in this table cannot reach DuckDB. Functions whose cost is not bounded by the size of their input
(`repeat`, `lpad`, `printf`, `range`, `levenshtein`, ...) are left out on purpose: DuckDB's limits do not bind scalar
functions. Geometry is bound in `qengine.sql.geometry`, because its arguments are not values.

The table is made of parts: `functions_standard` (ADQL 2.1), `functions_general` and `functions_aggregates` (extensions),
`functions_sky` (IVOA's catalogue), `functions_scisql` (Qserv). `qengine.sql.signatures` has the notation of a line.
`docs/functions.md` is written from it by `python -m qengine.sql.functions_page`, and TAPRegExt capabilities serve it.
"""

from __future__ import annotations

from collections.abc import Mapping

from qengine.sql.functions_aggregates import AGGREGATES, WINDOWS
from qengine.sql.functions_general import LISTS, MATHS, TEXTS, TIMES
from qengine.sql.functions_scisql import SCISQL
from qengine.sql.functions_sky import REFUSED, SKY
from qengine.sql.functions_standard import STANDARD
from qengine.sql.signatures import Function, Role

__all__ = ["FUNCTIONS", "GROUPS", "REFUSED", "Function", "Role", "known_names"]

GROUPS: Mapping[str, tuple[Function, ...]] = {
    "ADQL 2.1": STANDARD,
    "Astronomy: IVOA and GAVO": SKY,
    "Qserv and scisql": SCISQL,
    "Mathematics": MATHS,
    "Texts and regular expressions": TEXTS,
    "Times": TIMES,
    "Lists and structures": LISTS,
    "Aggregates": AGGREGATES,
    "Window functions": WINDOWS,
}
"""The parts of the table, as the documentation shows them."""

FUNCTIONS: Mapping[str, Function] = {function.name.upper(): function for group in GROUPS.values() for function in group}
"""All functions by upper-case name; geometry included, so that suggestions know it."""


def known_names(*, extensions: bool) -> tuple[str, ...]:
    """Return the names that a profile with or without extensions may call, for suggestions."""
    return tuple(function.name for function in FUNCTIONS.values() if extensions or not function.is_extension)
