"""The docstring of `coordinator/service.py` tells the life of a query: its nine stations are there, and every name in it is real."""

from __future__ import annotations

import importlib
import re

import pytest

from qengine.coordinator import service

STORY = service.__doc__ or ""
NAMES = sorted(set(re.findall(r"`(qengine(?:\.\w+)+)`", STORY)))


def test_there_are_nine_stations() -> None:
    assert re.findall(r"(?:^|(?<=\s))(\d)\. (\w[\w ]*):", STORY) == [
        ("1", "parse"), ("2", "bind"), ("3", "optimize"), ("4", "cut"), ("5", "look up"),
        ("6", "fragment"), ("7", "dispatch"), ("8", "merge"), ("9", "deliver"),
    ]  # fmt: skip


def test_names_are_written_out() -> None:
    assert len(NAMES) >= 10
    quoted = re.findall(r"`([^`]+)`", STORY)
    assert [name for name in quoted if "." in name and name not in NAMES] == []


@pytest.mark.parametrize("name", NAMES)
def test_name_resolves(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    assert hasattr(importlib.import_module(module), attribute)
