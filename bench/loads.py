"""Runs `load_once` for the suites of loads, and says where their stores may lie."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parent.parent


@contextmanager
def fresh_folder(path: Path) -> Iterator[Path]:
    """Yield `path`, empty, and remove it at the end. Give one on the disk of the data: temporary directories may be in memory."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def load_once(
    program: str, out: Path, tables: Mapping[str, Sequence[Path]], *, schema: Path | str = "", catalog: str = "bench",
    request: Mapping[str, Any] | None = None, **more: Any,
) -> dict[str, float]:  # fmt: skip
    """Load the files of `tables` into `out` in a process of its own and return cpu_s, wall_s and peak_mb."""
    words = {
        "out": str(out), "catalog": catalog, "tables": list(tables), "schema": str(schema),
        "inputs": [[str(one) for one in inputs] for inputs in tables.values()], "request": dict(request or {}), **more,
    }  # fmt: skip
    command = [sys.executable, "-m", "bench.load_once", program, json.dumps(words)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=_ROOT, check=False)
    if done.returncode:
        raise RuntimeError(f"{program} failed: {done.stderr[-2000:]}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures
