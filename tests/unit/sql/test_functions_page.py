"""The page of functions, and how capabilities declare them."""

from __future__ import annotations

import re
from pathlib import Path

from qengine.sql.functions import FUNCTIONS
from qengine.sql.functions_page import page
from qengine.sql.signatures import declarations, fn

ROOT = Path(__file__).resolve().parents[3]


def test_page_is_current() -> None:
    hint = "write it again: python -m qengine.sql.functions_page"
    assert (ROOT / "docs" / "functions.md").read_text() == page(), hint


def test_page_has_every_function_once() -> None:
    found = re.findall(r"^\| `(\w+)\(", page(), re.MULTILINE)
    assert sorted(found) == sorted(function.name for function in FUNCTIONS.values())


def test_declarations_are_plain() -> None:
    assert declarations("f(a A, [b B], [c C[], ..]) -> D") == ("f(a A) -> D", "f(a A, b B) -> D", "f(a A, b B, c C[]) -> D")
    pattern = re.compile(r"[A-Za-z]\w*\((?:\w+ [\w\[\]]+(?:, \w+ [\w\[\]]+)*)?\) -> [\w\[\]]+")
    for function in FUNCTIONS.values():
        for form in function.forms:
            for plain in declarations(form):
                assert pattern.fullmatch(plain), plain


def test_arity_follows_from_the_signature() -> None:
    function = fn("f(a double, [b text]) -> BIGINT", "Does.", ("f(1)", 1), also=("f(p point, q point, r point) -> BIGINT",))
    assert [count for count in range(5) if function.takes(count)] == [1, 2, 3]
    assert function.arity == "1 or 2 or 3"
    assert fn("g(a same..) -> = =", "Does.", "g(1)").arity == "at least 1"
