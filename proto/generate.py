"""Generate `qengine/transport/generated` from the .proto files: `python proto/generate.py [OUT_DIR]`.

protoc writes modules for the package `qengine.v1`, which would have to lie inside our own package `qengine`. So they are
flattened into one folder and their imports of each other made to fit.
"""

from __future__ import annotations

import re
import sys
import tempfile
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent
PACKAGE = "qengine.transport.generated"


def generate(out: Path) -> None:
    """Write all generated modules to `out`, and remove modules there that no .proto file makes."""
    protos = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("qengine/v1/*.proto"))
    with tempfile.TemporaryDirectory() as folder:
        includes = [f"-I{ROOT}", f"-I{resources.files('grpc_tools') / '_proto'}"]
        outputs = [f"--python_out={folder}", f"--pyi_out={folder}"]
        if protoc.main(["protoc", *includes, *outputs, *protos]) != 0:
            raise SystemExit("protoc failed")
        files = {path.name: path.read_text() for path in Path(folder, "qengine", "v1").iterdir()}
    files["__init__.py"] = '"""Made from proto/qengine/v1 by `make proto`; do not edit."""\n'
    out.mkdir(parents=True, exist_ok=True)
    for stale in out.glob("*.py*"):
        if stale.is_file() and stale.name not in files:
            stale.unlink()
    for name, text in files.items():
        (out / name).write_text(re.sub(r"^from qengine\.v1 import", f"from {PACKAGE} import", text, flags=re.MULTILINE))


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT.parent.joinpath(*PACKAGE.split(".")))
