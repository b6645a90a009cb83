"""Every function of the table by its own example, in every profile that has it."""

from __future__ import annotations

import pytest

from qengine.sql.functions import FUNCTIONS, Function
from tests.sql.examples import Examples

ALL = tuple(FUNCTIONS.values())


@pytest.fixture(scope="module")
def examples() -> Examples:
    return Examples()


def same(found: object, expected: object) -> bool:
    if isinstance(expected, (float, list)):
        return bool(found == pytest.approx(expected, rel=1e-9, abs=1e-9))
    return found == expected and type(found) is type(expected)


@pytest.mark.parametrize("function", ALL, ids=[f.name for f in ALL])
def test_example(examples: Examples, function: Function) -> None:
    for language in ("adql", "sql", *(() if function.is_extension else ("adql-strict",))):
        found = examples.example(function, language)
        if function.value is not None and not (function.name == "LOG" and language == "sql"):
            assert same(found, function.value), f"{function.example} in {language} gives {found!r}"


@pytest.mark.parametrize("function", ALL, ids=[f.name for f in ALL])
def test_has_a_signature_a_description_and_an_example_of_itself(function: Function) -> None:
    assert function.forms
    assert all(form.startswith(f"{function.name}(") for form in function.forms)
    assert function.description.endswith(".") or "NULL" in function.description, function.description
    assert function.name.lower() in function.example.lower()
