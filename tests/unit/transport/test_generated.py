"""The generated modules are those that the .proto files make today."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_generated_code_is_current(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(ROOT / "proto" / "generate.py"), str(tmp_path)], check=True)
    committed = ROOT / "qengine" / "transport" / "generated"
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    kept = {path.name: path.read_text() for path in committed.glob("*.py*")}
    assert made.keys() == kept.keys(), "run make proto"
    assert [name for name in made if made[name] != kept[name]] == [], "run make proto"
