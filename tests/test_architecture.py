"""The layout of the code as architecture.md, section 3, has it: who may import whom, and who owns which foreign library."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "qengine"

RANKS = {
    "errors": 0,
    "sky": 1,
    "catalog": 2,
    "sql": 3, "storage": 3,
    "plan": 4,
    "execution": 5, "transport": 5,
    "coordinator": 6, "worker": 6, "loader": 6,
    "tap": 7, "client": 7, "portal": 7, "config": 7,
    "opening": 7, "app": 8, "pipeline": 9, "verbs": 9, "verbs_progress": 9, "demo": 9, "verbs_releases": 10, "verbs_load": 10,
    "verbs_schema": 10, "verbs_map": 10, "verbs_store": 10, "verbs_users": 10, "cli_releases": 11, "cli_load": 11, "cli_schema": 11, "cli_store": 11,
    "cli_users": 11, "cli": 12,
}  # fmt: skip

OWNERS = {
    "healpy": ("sky/healpix.py",),
    "duckdb": ("execution/duck.py", "execution/merging.py"),
    "grpc": ("transport/",),
    "google": ("transport/",),
    "sqlglot": ("sql/", "plan/"),
    "sqlalchemy": (
        "catalog/registry.py",
        "catalog/database.py",
        "catalog/facts.py",
        "catalog/published.py",
        "catalog/loads.py",
        "catalog/jobs.py",
        "catalog/users.py",
        "catalog/rights.py",
        "catalog/query_log.py",
        "catalog/rates.py",
        "catalog/demand.py",
        "catalog/releases.py",
        "catalog/migrations/",
    ),
    "alembic": ("catalog/migrations/",),
    "felis": ("catalog/felis_schema.py",),
    "starlette": ("tap/", "portal/"),
    "joserfc": ("tap/oidc.py",),
    "uvicorn": ("tap/", "app.py", "cli.py"),
    "typer": ("cli.py", "cli_releases.py", "cli_load.py", "cli_schema.py", "cli_store.py", "cli_users.py"),
    "PIL": ("client/picture.py",),
    "obstore": ("storage/remote.py", "storage/bucket.py"),
    "distributed": ("loader/executor_dask.py",),
    "lsst": ("loader/sources/butler.py", "pipeline/"),
}
"""Library -> files (or folders, with a slash) that may import it."""

WORKER_SIDE = ("worker", "execution", "transport")
NOT_ON_WORKERS = ("sqlglot", "sqlalchemy", "alembic", "felis", "starlette")


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Every module of the package, generated code left out, as (path in the package, tree)."""
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if "/generated/" not in name:
            yield name, ast.parse(path.read_text(), name)


def imported(name: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything that a module imports anywhere in it, in functions too."""
    package = ["qengine", *name.split("/")[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*package[: len(package) - node.level + 1], *filter(None, [base])])
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"


def unit_of(dotted: str) -> str:
    """The first name under qengine: `qengine.plan.lift.lift` -> `plan`."""
    parts = dotted.split(".")
    return parts[1] if len(parts) > 1 else ""


def test_every_folder_has_a_rank() -> None:
    found = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in PACKAGE.rglob("*.py")} - {"__init__"}
    assert found <= set(RANKS), f"give {sorted(found - set(RANKS))} a rank"


def test_imports_go_strictly_downwards() -> None:
    wrong = []
    for name, tree in modules():
        own = name.split("/")[0].removesuffix(".py")
        if own == "__init__":  # exposes app.connect
            continue
        for line, dotted in imported(name, tree):
            other = unit_of(dotted) if dotted.startswith("qengine.") else ""
            if other in RANKS and other != own and RANKS[other] >= RANKS[own]:
                wrong.append(f"{name}:{line} imports {dotted}: rank {RANKS[own]} must not see rank {RANKS[other]}")
    assert not wrong, "\n".join(wrong)


def test_each_foreign_library_has_one_owner() -> None:
    wrong = []
    for name, tree in modules():
        for line, dotted in imported(name, tree):
            library = dotted.split(".")[0]
            if library in OWNERS and not any(
                name == place or (place.endswith("/") and name.startswith(place)) for place in OWNERS[library]
            ):
                wrong.append(f"{name}:{line} imports {dotted}, which belongs to {', '.join(OWNERS[library])}")
    assert not wrong, "\n".join(wrong)


def test_worker_side_imports_only_the_task_types_of_plan() -> None:
    allowed = ("qengine.plan.physical", "qengine.sql.macros")
    wrong = []
    for name, tree in modules():
        if name.split("/")[0] in WORKER_SIDE:
            for line, dotted in imported(name, tree):
                if unit_of(dotted) in ("plan", "sql") and dotted.startswith("qengine.") and not dotted.startswith(allowed):
                    wrong.append(f"{name}:{line} imports {dotted}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("folder", WORKER_SIDE)
def test_worker_side_process_loads_no_planner(folder: str) -> None:
    """What a process really has loaded after importing every module of the folder: also what others drag in."""
    names = [
        f"qengine.{path.relative_to(PACKAGE).with_suffix('').as_posix().replace('/', '.')}"
        for path in (PACKAGE / folder).rglob("*.py")
    ]
    imports = "; ".join(f"import {name.removesuffix('.__init__')}" for name in sorted(names) if "_pb2_grpc" not in name)
    code = f"import sys; {imports}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, timeout=60)
    loaded = set(done.stdout.split())
    foreign = sorted(name for name in loaded if name in NOT_ON_WORKERS)
    macros = {f"qengine.sql.{name}" for name in ("macros", "macros_sky", "macros_scisql")}
    allowed = {"qengine.plan", "qengine.plan.physical", "qengine.sql", *macros}
    planner = sorted(
        n for n in loaded if n.startswith(("qengine.plan", "qengine.sql", "qengine.catalog.registry")) and n not in allowed
    )
    assert not foreign, f"a worker loads {foreign}"
    assert not planner, f"a worker loads {planner}"
