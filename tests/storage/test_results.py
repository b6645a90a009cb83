"""Results of jobs in a directory and in a bucket: made on one machine, fetched and removed on another."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from qengine.catalog.database import now
from qengine.catalog.files import Files, LocalFiles
from qengine.catalog.jobs import Job
from qengine.storage.bucket import Bucket, BucketFiles
from qengine.tap.results import ResultFolder, orphans

Machine = Callable[[str], Files]


@pytest.fixture(params=["directory", "bucket"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Machine:
    """Makes machines by name; they share a directory, or a bucket of which each has a near copy."""
    if request.param == "directory":
        return lambda name: LocalFiles(tmp_path / "store")
    address = f"{request.getfixturevalue('bucket')}/{uuid4().hex}"
    return lambda name: BucketFiles(tmp_path / name, Bucket(address))


def job(epoch: int = 1, *, losses: int = 0) -> Job:
    return Job(id=uuid4().hex, created=now(), destruction=now(), epoch=epoch, losses=losses)


def make(folder: ResultFolder, one: Job) -> Job:
    target = folder.target(one, "csv")
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.tmp")
    draft.write_text(f"of epoch {one.epoch}")
    folder.publish(draft, target)
    return replace(one, result={"file": target.name})


def test_a_result_is_there_for_all_until_it_is_removed(machine: Machine) -> None:
    here, there = ResultFolder(machine("here")), ResultFolder(machine("there"))
    done = make(here, job())
    assert here.result(done).read_text() == there.result(done).read_text() == "of epoch 1"
    there.remove(done.id)
    there.remove(done.id)
    fresh = ResultFolder(machine("third"))
    assert not fresh.result(done).is_file()


def test_what_other_epochs_have_left(machine: Machine) -> None:
    dead, here = ResultFolder(machine("dead")), ResultFolder(machine("here"))
    first = make(dead, job())
    second = replace(first, epoch=2, losses=1)
    here.clear_older(second)
    second = make(here, second)
    dead.clear_own(first)
    fresh = ResultFolder(machine("third"))
    assert fresh.result(second).read_text() == "of epoch 2"
    assert not fresh.result(first).is_file()
    here.clear_own(second)
    assert not ResultFolder(machine("fourth")).result(second).is_file()


def test_orphans(machine: Machine) -> None:
    files = machine("here")
    folder = ResultFolder(files)
    assert folder.present() == frozenset()
    old, young = make(folder, job()), make(folder, job())
    hours_ago = time.time() - 7200
    os.utime(folder.of(old), (hours_ago, hours_ago))
    (folder.of(old).parent / "of-somebody").mkdir()
    present = folder.present()
    assert present == ({old.id, young.id} if files.is_far else {old.id})
    assert orphans(present, {young.id}) == [old.id]


def test_a_file_name_cannot_lead_elsewhere(machine: Machine) -> None:
    folder = ResultFolder(machine("here"))
    done = make(folder, job())
    assert folder.result(replace(done, result={"file": "../../registry.sqlite"})).parent == folder.of(done)
    folder.remove("..")
    folder.remove("")
    assert folder.result(done).is_file()
