"""Runs the commands of a page of docs/ as its readers would: in order, in a shell."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

_DOCS = Path(__file__).parents[2] / "docs"


def run_page(name: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run all `sh` blocks of a page in `folder` as one script that stops at the first failure, and return what was printed."""
    blocks = re.findall(r"```sh\n(.*?)```", (_DOCS / name).read_text(encoding="utf-8"), re.DOTALL)
    assert blocks, f"{name} has no commands"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euxc", "\n".join(blocks)], cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-5000:]}"
    return done
