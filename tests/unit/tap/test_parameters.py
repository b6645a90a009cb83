from __future__ import annotations

import pytest

from qengine.errors import QEngineError
from qengine.tap.formats.choose import ARROW, BINARY2, CSV, FITS, FORMATS, JSON, PARQUET, TABLEDATA, TSV, accepted, find_format
from qengine.tap.formats.writer import Format
from qengine.tap.parameters import Parameters, SyncRequest, check_sync

GOOD = (("LANG", "ADQL"), ("QUERY", "SELECT 1"))


def check(*pairs: tuple[str, str]) -> SyncRequest:
    return check_sync(Parameters.gather(pairs), default_maxrec=10, maxrec_limit=100)


def test_defaults() -> None:
    found = check(*GOOD)
    assert (found.text, found.language, found.format, found.maxrec, dict(found.snapshots)) == ("SELECT 1", "adql", BINARY2, 10, {})


def test_names_in_any_case_and_repeated_equal_values() -> None:
    assert check(("lang", "adql"), ("Lang", "adql"), ("qUeRy", "SELECT 1"), ("maxrec", "5")).maxrec == 5


def test_the_text_keeps_its_blanks_for_positions() -> None:
    assert check(("LANG", "ADQL"), ("QUERY", "\n  SELECT 1 ")).text == "\n  SELECT 1 "


def test_maxrec_is_held_to_the_limit() -> None:
    assert check(*GOOD, ("MAXREC", "1000")).maxrec == 100
    assert check(*GOOD, ("MAXREC", "0")).maxrec == 0
    assert check_sync(Parameters.gather(GOOD), default_maxrec=1000, maxrec_limit=100).maxrec == 100


def test_responseformat_wins_over_format() -> None:
    assert check(*GOOD, ("FORMAT", "csv"), ("RESPONSEFORMAT", "arrow")).format is ARROW
    assert check(*GOOD, ("FORMAT", "csv")).format is CSV


def test_snapshots_of_several_catalogues() -> None:
    assert check(*GOOD, ("SNAPSHOT", "a:1"), ("SNAPSHOT", "b:2"), ("SNAPSHOT", "a:1")).snapshots == {"a": 1, "b": 2}
    assert check(*GOOD, ("SNAPSHOT", "dp1:DP1"), ("SNAPSHOT", "b:2026-11-01T12:30:00")).snapshots == {
        "dp1": "DP1",
        "b": "2026-11-01T12:30:00",
    }


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ((("QUERY", "SELECT 1"),), "LANG is missing"),
        ((("LANG", "ADQL"),), "QUERY is missing"),
        ((*GOOD, ("QUERY", "SELECT 2")), "QUERY is given 2 times"),
        ((*GOOD, ("MAXREC", "1"), ("MAXREC", "2")), "MAXREC is given 2 different values"),
        ((*GOOD, ("MAXREC", "\u0663")), "MAXREC"),
        ((*GOOD, ("SNAPSHOT", ":1")), "SNAPSHOT"),
        ((*GOOD, ("SNAPSHOT", "a:")), "SNAPSHOT"),
        ((*GOOD, ("SNAPSHOT", "a:1"), ("SNAPSHOT", "a:2")), "two snapshots of a"),
        ((*GOOD, ("RESPONSEFORMAT", "xlsx")), "'xlsx' is not offered"),
    ],
)
def test_mistakes_name_the_parameter(pairs: tuple[tuple[str, str], ...], message: str) -> None:
    with pytest.raises(QEngineError, match=message) as caught:
        check(*pairs)
    assert caught.value.hint or "different" in message


@pytest.mark.parametrize("kind", FORMATS, ids=lambda kind: kind.aliases[0])
def test_every_declared_name_is_understood(kind: Format) -> None:
    for name in (kind.media_type, *kind.aliases):
        assert find_format(name)[0] is kind
        assert find_format(f" {name.upper()} ")[0] is kind


def test_media_types_are_echoed() -> None:
    assert find_format("application/x-votable+xml; serialization=BINARY2")[1] == "application/x-votable+xml; serialization=BINARY2"
    assert find_format("text/csv")[1] == "text/csv;header=present"


@pytest.mark.parametrize(
    ("spelling", "kind", "sent"),
    [
        ('application/x-votable+xml;serialization="TABLEDATA"', TABLEDATA, 'application/x-votable+xml;serialization="TABLEDATA"'),
        ("application/x-votable+xml;charset=utf-8", BINARY2, "application/x-votable+xml;charset=utf-8"),
        ("application/x-votable+xml;\r\n serialization=TABLEDATA", TABLEDATA, "application/x-votable+xml; serialization=TABLEDATA"),
        ("application/xml", BINARY2, "application/xml"),
        ("votabletd", TABLEDATA, TABLEDATA.media_type),
        ("votable_plain", TABLEDATA, TABLEDATA.media_type),
        ("text/csv;charset=UTF-8", CSV, CSV.media_type),
        ("text/csv; header=present", CSV, "text/csv; header=present"),
        ("text/tab-separated-values;header=present", TSV, "text/tab-separated-values;header=present"),
        ("application/parquet", PARQUET, "application/parquet"),
        ("application/x-parquet", PARQUET, "application/x-parquet"),
        ("image/fits", FITS, "application/fits"),
    ],
)
def test_spellings_that_clients_send(spelling: str, kind: Format, sent: str) -> None:
    assert find_format(spelling) == (kind, sent)


@pytest.mark.parametrize(
    "spelling", ["text/csv;header=absent", "application/x-votable+xml;serialization=FITS", "text/csv;charset=latin-1"]
)
def test_what_a_media_type_asks_for_is_not_ignored(spelling: str) -> None:
    with pytest.raises(QEngineError, match="is not offered"):
        find_format(spelling)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", ""),
        ("*/*", ""),
        ("text/csv", "text/csv"),
        ("application/json, text/plain;q=0.5, */*;q=0.1", "application/json"),
        ("text/csv;q=0.2, application/vnd.apache.parquet;q=0.9", "application/vnd.apache.parquet"),
        ("text/csv;q=0", ""),
        ("text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", ""),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8", "application/xml"),
        ("application/x-votable+xml;serialization=TABLEDATA;q=0.7", "application/x-votable+xml;serialization=TABLEDATA"),
        ("*/*, text/csv;q=0.5", ""),
        ("image/png", ""),
        ("text/csv;q=much", ""),
    ],
)
def test_what_an_accept_header_asks_for(header: str, expected: str) -> None:
    assert accepted(header) == expected


def test_responseformat_wins_over_the_accept_header() -> None:
    pairs = Parameters.gather((*GOOD, ("FORMAT", "csv")))
    assert check_sync(pairs, default_maxrec=10, maxrec_limit=100, accept="application/json").format is CSV
    assert check_sync(Parameters.gather(GOOD), default_maxrec=10, maxrec_limit=100, accept="application/json").format is JSON
