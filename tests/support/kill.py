"""Processes that die at a chosen call: `killer.c`, compiled with the machine's C compiler and preloaded."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("killer.c")
HAS_COMPILER = sys.platform == "linux" and shutil.which("cc") is not None


@dataclass(frozen=True, slots=True)
class Killer:
    """Runs Python programs that end at the n-th call that changes a file below a folder."""

    library: Path

    @classmethod
    def compile(cls, folder: Path) -> Killer:
        """Compile the library into `folder`."""
        library = folder / "killer.so"
        command = ["cc", "-O1", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        return cls(library)

    def calls(self, program: str, arguments: Sequence[str], root: Path) -> int:
        """Run the program to its end and return how many calls have changed files below `root`."""
        log = self.library.with_suffix(f".{os.getpid()}.calls")
        log.unlink(missing_ok=True)
        self._run(program, arguments, root, {"KILLER_COUNT": str(log)}, expected=(0,))
        return log.stat().st_size

    def kill_at(self, program: str, arguments: Sequence[str], root: Path, at: int) -> bool:
        """Run the program and return whether it has died at its `at`-th call; it may have ended before."""
        return self._run(program, arguments, root, {"KILLER_AT": str(at)}, expected=(0, -signal.SIGKILL)) != 0

    def _run(self, program: str, arguments: Sequence[str], root: Path, words: dict[str, str], *, expected: tuple[int, ...]) -> int:
        environment = {**os.environ, **words, "LD_PRELOAD": str(self.library), "KILLER_ROOT": str(root)}
        command = [sys.executable, "-c", program, *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode in expected, f"ended with {done.returncode}:\n{done.stderr[-3000:]}"
        return done.returncode
