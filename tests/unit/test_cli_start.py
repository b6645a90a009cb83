"""The command line starts at once: what takes seconds to import is imported by the verbs that need it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from qengine import cli_load
from qengine.catalog.model import TableKind
from qengine.loader.request import ExtraColumns, MissingColumns, OnDuplicate

HEAVY = (
    "astropy",
    "healpy",
    "duckdb",
    "sqlglot",
    "starlette",
    "sqlalchemy",
    "alembic",
    "pyarrow",
    "numpy",
    "grpc",
    "pandas",
    "numba",
)


def loaded(code: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    return {line.split(".")[0] for line in done.stderr.split("MODULES")[-1].split()}


@pytest.mark.parametrize("arguments", [["--help"], ["query", "--help"], ["explain", "--nonsense"], ["cancel"]])
def test_help_and_mistakes_import_nothing_heavy(arguments: list[str]) -> None:
    code = f"import sys; from qengine.cli import run; run({arguments!r}); print('MODULES', *sys.modules, file=sys.stderr)"
    found = loaded(code)
    assert "typer" in found
    assert not found & set(HEAVY)


def test_a_connection_loads_no_web_framework_and_no_migrations() -> None:
    found = loaded("import sys; import qengine.app, qengine.catalog.registry; print('MODULES', *sys.modules, file=sys.stderr)")
    assert "duckdb" in found
    assert not found & {"starlette", "uvicorn", "alembic", "mako"}


def test_kinds_are_those_of_the_catalogue() -> None:
    assert {kind.value for kind in cli_load.Kind} == {kind.value for kind in TableKind}
    assert [one.value for one in cli_load.Duplicates] == [one.value for one in OnDuplicate]
    assert [one.value for one in cli_load.Extra] == [one.value for one in ExtraColumns]
    assert [one.value for one in cli_load.Missing] == [one.value for one in MissingColumns]
