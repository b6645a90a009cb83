from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from qengine.config import Config
from qengine.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    rows: int = 1
    share: float = 0.5
    name: str = "x"
    is_fast: bool = False
    folder: Path = Path("/tmp")
    addresses: tuple[str, ...] = ()
    url: str | None = None


def config(tmp_path: Path, text: str, **environment: str) -> Config:
    path = tmp_path / "qengine.toml"
    path.write_text(text)
    return Config.read(path, environment)


def test_defaults() -> None:
    found = Config.read(None, {})
    assert found.fill("sample", Sample) == Sample()
    found.finish()


def test_file_and_environment(tmp_path: Path) -> None:
    text = '[sample]\nrows = 5\nshare = 1\nis_fast = true\naddresses = ["a:1", "b:2"]\nurl = "u"\nfolder = "/data"\n'
    found = config(tmp_path, text, QENGINE_SAMPLE__ROWS="7", QENGINE_SAMPLE__NAME="y", QENGINE_STORE="/s", PATH="/bin")
    assert found.fill("sample", Sample) == Sample(
        rows=7, share=1.0, name="y", is_fast=True, addresses=("a:1", "b:2"), url="u", folder=Path("/data")
    )
    found.finish()


def test_lists_in_the_environment() -> None:
    found = Config.read(None, {"QENGINE_SAMPLE__ADDRESSES": "a:1, b:2", "QENGINE_SAMPLE__IS_FAST": "on"})
    assert found.fill("sample", Sample) == Sample(addresses=("a:1", "b:2"), is_fast=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[sample]\nrow = 1", "sample.row is not a setting"),
        ("[sample]\nrows = 1.5", "sample.rows must be a whole number"),
        ('[sample]\nrows = "many"', "sample.rows must be a whole number"),
        ("[sample]\nrows = true", "sample.rows must be a whole number"),
        ('[sample]\nshare = "much"', "sample.share must be a number"),
        ("[sample]\nis_fast = 2", "sample.is_fast must be true or false"),
        ("[sample]\nname = 3", "sample.name cannot be 3"),
        ("[sample]\naddresses = 3", "sample.addresses must be a list"),
        ("rows = 1", "rows is outside of any section"),
        ("[sample\n", "is not TOML"),
        ("[simple]\nrows = 1", r"\[simple\] is not a section"),
    ],
)
def test_wrong_settings(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):  # noqa: PT012
        found = config(tmp_path, text)
        found.fill("sample", Sample)
        found.finish()


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        Config.read(tmp_path / "none.toml", {})
