"""The page of all functions, written from the function table: `python -m qengine.sql.functions_page [path]`.

`docs/functions.md` is its output; a test compares the two.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from qengine.sql.functions import GROUPS, REFUSED, Function
from qengine.sql.signatures import Role

PATH = Path("docs/functions.md")

_HEAD = """# Functions

Written by `python -m qengine.sql.functions_page` from the function table (`qengine/sql/functions*.py`); do not edit it by hand.
Every example is run by the tests, alone and on a table of many tiles.

Names are case-insensitive. The profile `adql-strict` takes the functions of the first two parts, `adql` and `sql` take all; the use
of an extension is named in a warning. Arguments in brackets may be left out, `..` stands for more of the same. An argument that is
NULL gives NULL unless something else is said. Angles are degrees where nothing else is said, positions ICRS. Aggregates marked with
*merged* are computed where the data are and merged; the others collect the values that they need.

Examples are about a table `sky.t` of four rows:

| id | ra | dec | n | x | name | flag | seen | times | curve |
|---|---|---|---|---|---|---|---|---|---|
| 1 | 10 | 20 | 1 | 0.5 mas | a | false | 2020-01-01T12:00:00 | [1, 2, 4] | {mjd: [1, 2], flux: [3, 4]} |
| 2 | 10 | 20.001 | 2 | 1 mas | b | false | 2020-01-02T12:00:00 | [1, 2, 4] | {mjd: [1, 2], flux: [3, 4]} |
| 3 | 10 | 20.002 | 3 | 1.5 mas | c | true | 2020-01-03T12:00:00 | [1, 2, 4] | {mjd: [1, 2], flux: [3, 4]} |
| 4 | 10 | 20.003 | 4 | 2 mas | d | true | 2020-01-04T12:00:00 | [1, 2, 4] | {mjd: [1, 2], flux: [3, 4]} |

Values of scalar functions are those of the first row.
"""

_TAIL = """
## Left out on purpose

These names are refused, with the reason in the message.

| Name | Reason |
|---|---|
"""

_NOTES = {
    "ADQL 2.1": "Borders belong to shapes; distances are exact to far below 1 mas everywhere. The coordinate system, an optional "
    "first argument of a shape, has to be ICRS.",
    "Astronomy: IVOA and GAVO": "Numbers of HEALPix pixels are those of healpy, bit by bit, whatever the order; "
    "what lies on the border "
    "of pixels belongs to the one that healpy says. Tests of coverage maps and of pixels read only the tiles that they need.",
    "Qserv and scisql": "A statement of a Qserv notebook runs as it is. Tests of positions give 0, not NULL, where an argument is "
    "NULL; all of them and the areas read only the tiles that they need. Areas restrict the position of every director in FROM.",
    "Aggregates": "FILTER (WHERE ..) and DISTINCT stand where SQL has them. What depends on the order of rows goes by "
    "ORDER BY inside the parentheses, then by the values, so that the answer does not depend on tiles.",
}


def page() -> str:
    """Return the page as Markdown."""
    return "".join(_lines())


def _lines() -> Iterator[str]:
    yield _HEAD
    for title, functions in GROUPS.items():
        yield f"\n## {title}\n\n"
        if title in _NOTES:
            yield f"{_NOTES[title]}\n\n"
        yield "| Function | Meaning | Example | Value |\n|---|---|---|---|\n"
        for function in functions:
            yield f"| {_forms(function)} | {_meaning(function)} | `{_cell(function.example)}` | {_value(function)} |\n"
    yield _TAIL
    for name, reason in REFUSED.items():
        yield f"| {name.lower()} | {reason} |\n"


def _forms(function: Function) -> str:
    return "<br>".join(f"`{_cell(form)}`" for form in function.forms)


def _meaning(function: Function) -> str:
    unit = "the unit of the first argument" if function.unit == "=" else function.unit
    text = function.description + (f" Unit: {unit}." if unit else "")
    if function.words:
        text += f" Words: {', '.join(function.words)}."
    return _cell(text + (" *merged*" if function.is_mergeable and function.role is Role.AGGREGATE else ""))


def _value(function: Function) -> str:
    value = function.value
    if value is None:
        return "NULL" if function.name == "NULLIF" else ""
    if isinstance(value, float):
        return f"{value:.12g}"
    if isinstance(value, list):
        return "[" + ", ".join(f"{item:.12g}" if isinstance(item, float) else str(item) for item in value) + "]"
    return _cell(str(value).lower() if isinstance(value, bool) else str(value))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main(arguments: list[str]) -> None:
    """Write the page."""
    path = Path(arguments[0]) if arguments else PATH
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page())


if __name__ == "__main__":
    main(sys.argv[1:])
