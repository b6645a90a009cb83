"""Tasks run somewhere else: every result comes once, whatever happens to the workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from qengine.errors import PoisonTaskError
from qengine.loader.executor import Processes, attempt_folder, ordered


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Write `number` into a file; the first attempt at task `deadly` kills its own worker before the file is complete."""

    folder: Path
    number: int
    deadly: int = -1
    is_always: bool = False


def write(task: Task) -> Path:
    """Do the task and return the file."""
    path = attempt_folder(task.folder) / str(task.number)
    path.write_text(str(task.number)[:-1])
    if task.number == task.deadly:
        mark = task.folder / "died"
        if task.is_always or not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    if task.number < 0:
        raise ValueError("negative")
    path.write_text(str(task.number))
    return path


def test_every_result_comes_once_though_a_worker_is_killed(tmp_path: Path) -> None:
    tasks = [Task(folder=tmp_path, number=number, deadly=5) for number in range(20)]
    with Processes(2) as executor:
        found = list(executor.run(write, tasks, ahead=4))
        again = list(executor.run(write, tasks[:3], ahead=4))
    assert (tmp_path / "died").exists()
    assert sorted(number for number, _ in found) == list(range(20))
    assert all(path.read_text() == str(number) for number, path in found)
    assert len(again) == 3


def test_a_task_that_always_kills_its_worker_ends_the_run(tmp_path: Path) -> None:
    tasks = [Task(folder=tmp_path, number=0, deadly=0, is_always=True)]
    with Processes(1, attempts=2) as executor, pytest.raises(PoisonTaskError, match="2 times"):
        list(executor.run(write, tasks, ahead=2))


def test_an_error_of_a_task_is_raised(tmp_path: Path) -> None:
    with Processes(1) as executor, pytest.raises(ValueError, match="negative"):
        list(executor.run(write, [Task(folder=tmp_path, number=-1)], ahead=2))


def test_items_are_taken_only_as_they_are_needed(tmp_path: Path) -> None:
    taken: list[int] = []

    def tasks() -> Iterator[Task]:
        for number in range(12):
            taken.append(number)
            yield Task(folder=tmp_path, number=number)

    with Processes(1) as executor:
        for count, _ in enumerate(executor.run(write, tasks(), ahead=3), 1):
            assert len(taken) <= count + 2
    assert len(taken) == 12


@pytest.mark.parametrize("ahead", [1, 2])
def test_no_item_is_forgotten_when_all_that_were_begun_have_ended(tmp_path: Path, ahead: int) -> None:
    with Processes(2) as executor:
        found = executor.run(write, [Task(folder=tmp_path, number=number) for number in range(8)], ahead=ahead)
        assert sorted(number for number, _ in found) == list(range(8))


def test_results_in_the_order_of_their_items() -> None:
    assert list(ordered([(2, "c"), (0, "a"), (3, "d"), (1, "b")])) == ["a", "b", "c", "d"]


PROGRAM = """
import os, sys, time
from concurrent.futures import wait
from qengine.loader.executor import Processes
with Processes(1) as executor:
    for _, pid in executor.run(os.getpgid, [0], ahead=1):
        pass
    print(*executor._pool._processes, flush=True)
    time.sleep(60)
"""


def test_workers_end_with_the_process_that_began_them() -> None:
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as program:
        assert program.stdout is not None
        worker = int(program.stdout.readline())
        program.kill()
    deadline = time.monotonic() + 20
    while Path(f"/proc/{worker}/cmdline").exists() and Path(f"/proc/{worker}/cmdline").read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.05)
