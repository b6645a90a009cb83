"""Frames and clocks of columns: what VOTables say of them, in words and back."""

from __future__ import annotations

import pytest

from qengine.catalog.systems import checked, from_element, to_element


@pytest.mark.parametrize(
    ("tag", "given", "words", "back"),
    [
        ("COOSYS", {"system": "ICRS"}, "COOSYS ICRS", {}),
        ("COOSYS", {"system": "ICRS", "epoch": "J2016.0"}, "COOSYS ICRS J2016.0", {}),
        ("COOSYS", {"equinox": "J2000"}, "COOSYS eq_FK5 - J2000", {"system": "eq_FK5"}),
        ("COOSYS", {"system": "FK4", "equinox": "B1950", "epoch": "1980"}, "COOSYS eq_FK4 1980 B1950", {"system": "eq_FK4"}),
        ("TIMESYS", {"timescale": "TAI", "refposition": "UNKNOWN"}, "TIMESYS TAI - UNKNOWN", {}),
        (
            "TIMESYS", {"timescale": "TCB", "refposition": "BARYCENTER", "timeorigin": "MJD-origin"},
            "TIMESYS TCB 2400000.5 BARYCENTER", {},
        ),
        ("TIMESYS", {"timescale": "UTC", "timeorigin": "2451545.0"}, "TIMESYS UTC 2451545.0", {"refposition": "UNKNOWN"}),
    ],
)  # fmt: skip
def test_words_and_back(tag: str, given: dict[str, str], words: str, back: dict[str, str]) -> None:
    assert from_element(tag, given) == words
    assert to_element(words) == (tag, given | back)
    assert checked(words).startswith(words)


@pytest.mark.parametrize(
    ("tag", "given"),
    [
        ("COOSYS", {"system": "home made"}),
        ("TIMESYS", {"refposition": "GEOCENTER"}),
        ("TIMESYS", {"timescale": "UTC", "timeorigin": "yesterday"}),  # without it they would be other times
    ],
)
def test_what_says_nothing(tag: str, given: dict[str, str]) -> None:
    assert from_element(tag, given) == ""


@pytest.mark.parametrize("text", ["", "COOSYS", "COOSYS ", "COOSYS mine", "TIMESYS", "FRAME ICRS", 'TIMESYS "><x', "\u2003 x"])
def test_words_of_strangers_are_checked(text: str) -> None:
    assert checked(text) == ""


def test_years_of_strangers_are_checked() -> None:
    assert checked("COOSYS ICRS soon J2000 more") == "COOSYS ICRS - J2000"
