from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qengine.execution.duck import EngineSettings
from qengine.execution.runner import TaskRunner
from qengine.execution.spool import Spool
from qengine.execution.verify import PartVerifier
from qengine.plan.physical import Task, TaskEvent


@pytest.fixture
def store(tmp_path: Path) -> Path:
    root = tmp_path / "store"
    root.mkdir()
    return root


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


@pytest.fixture
def runner(store: Path, tmp_path: Path, spool: Spool) -> Iterator[TaskRunner]:
    verifier = PartVerifier(stamps=tmp_path / "verified")
    made = TaskRunner(store, EngineSettings(memory_bytes=256 << 20, temp_dir=tmp_path / "temp"), verifier=verifier, spool=spool)
    yield made
    made.close()
    verifier.close()


@pytest.fixture
def run(runner: TaskRunner) -> Callable[[Task], list[TaskEvent]]:
    def collect(task: Task) -> list[TaskEvent]:
        events: list[TaskEvent] = []
        runner.run(task, events.append)
        return events

    return collect
