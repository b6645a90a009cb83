"""The table of the folder's docstring is whole, and names tests that exist."""

from __future__ import annotations

import ast
from pathlib import Path

import tests.tap.clients

CLIENTS = {"pyvo", "astroquery TapPlus", "stilts tapquery", "stilts tapskymatch", "curl", "TOPCAT"}
KINDS = {"sync", "async", "upload", "abort", "delete"}


def _table() -> list[tuple[str, set[str], str]]:
    lines = [line for line in (tests.tap.clients.__doc__ or "").splitlines() if line.startswith("|")][2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [(client, set(kinds.split()), test) for client, kinds, test in rows]


def test_each_client_has_an_entry_for_each_kind() -> None:
    assert {(client, kind) for client, kinds, _ in _table() for kind in kinds} == {
        (client, kind) for client in CLIENTS for kind in KINDS
    }


def test_the_tests_exist() -> None:
    for _, _, test in _table():
        if test != "-":
            module, name = test.split(".")
            tree = ast.parse(Path(__file__).with_name(f"{module}.py").read_text())
            assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, test
