"""Quotes of a delimited text that are not closed: they join lines, so that rows vanish in a text and nothing else tells.

The parser takes a quote at the beginning of a field for an opening one, and everything up to the next single quote for its value,
lines included; what stands behind the closing quote is taken, too. So one quote that is missing makes one row of two, or of many.
A text is refused if a quoted value goes over the end of a line and is not closed as it should be (by a quote before a delimiter,
the end of the line or the end of the text), or is not closed at all. Values of several lines whose quotes are in order, and quotes
within unquoted values (5" dome), are fine.

Most texts have no quotes, or all in order: then the parity of their number says what is inside, and numpy checks the neighbours of
all quotes of a block at once. Only from the first block on where that is not so are quotes looked at one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qengine.errors import InputError

_BLOCK_BYTES = 8 << 20
_LINE_ENDS = b"\r\n"
_HINT = "correct the line, or name another quote"


@dataclass(slots=True)
class _State:
    """Where the scan is: in a quoted value or not, the line (from 1) where that began, whether it has an end of line; the line;
    whether the next byte is the second of a doubled quote."""

    is_inside: bool = False
    began: int = 0
    has_line_end: bool = False
    line: int = 1
    is_doubled: bool = False


def check_quotes(read: Callable[[int], bytes], *, name: str, delimiter: str, quote: str, skipped: int = 0) -> None:
    """Raise `InputError` naming the line if a quote that is not closed joins lines of the text that `read` gives in pieces.

    The first `skipped` lines are not looked at.
    """
    mark, ends = ord(quote), np.frombuffer(delimiter.encode() + _LINE_ENDS, np.uint8)
    state = _State(line=skipped + 1)
    is_plain = True
    for before, block, after in _blocks(read, skipped):
        values = np.frombuffer(block, np.uint8)
        at = np.flatnonzero(values == mark)
        if not len(at):
            if state.is_inside and not state.has_line_end:
                state.has_line_end = b"\n" in block
            state.line += block.count(b"\n")
            continue
        is_plain = is_plain and _is_in_order(values, at, before, after, ends, state)
        if is_plain:
            _advance(block, at, state)
        else:
            _walk(block, at, before, after, ends.tobytes(), state, name)
    if state.is_inside:
        raise InputError(f"{name}: line {state.began}: a quote is opened that is not closed", hint=_HINT)


def _blocks(read: Callable[[int], bytes], skipped: int) -> Iterator[tuple[int, bytes, int]]:
    """Yield blocks behind the skipped lines with the bytes before and after them (-1 at both ends of the text)."""
    before, block = -1, read(_BLOCK_BYTES)
    while block and skipped:
        lines = block.count(b"\n")
        block = block.split(b"\n", skipped)[-1] if lines >= skipped else b""
        skipped -= min(skipped, lines)
        block = block or read(_BLOCK_BYTES)
    while block:
        more = read(_BLOCK_BYTES)
        yield before, block, more[0] if more else -1
        before, block = block[-1], more


def _is_in_order(
    values: NDArray[np.uint8], at: NDArray[np.int64], before: int, after: int, ends: NDArray[np.uint8], state: _State
) -> bool:
    """Say whether every quote of a block opens a field, closes one, or is doubled within one."""
    left = np.concatenate([[before], values]).astype(np.int16)[at]
    right = np.concatenate([values[1:], [after]]).astype(np.int16)[at]
    is_inside = (np.arange(len(at)) + state.is_inside) % 2 == 1
    mark = values[at[0]]
    fine_left = np.isin(left, ends) | (left == -1) | (left == mark)
    fine_right = np.isin(right, ends) | (right == -1) | (right == mark)
    return bool(np.where(is_inside, fine_right, fine_left).all())


def _advance(block: bytes, at: NDArray[np.int64], state: _State) -> None:
    """Bring the state behind a block whose quotes are in order."""
    is_inside = (len(at) + state.is_inside) % 2 == 1
    if is_inside:
        last = int(at[-1])
        state.began = state.line + block.count(b"\n", 0, last)
        state.has_line_end = b"\n" in block[last:]
    state.is_inside = is_inside
    state.line += block.count(b"\n")


def _walk(block: bytes, at: NDArray[np.int64], before: int, after: int, ends: bytes, state: _State, name: str) -> None:
    """Bring the state behind a block, quote by quote, as the parser takes them."""
    first = state.line
    counted = lines = 0
    since = 0  # where the value goes on in this block
    skip = 0 if state.is_doubled else -1
    state.is_doubled = False
    for place in at.tolist():
        if place == skip:
            continue
        left = block[place - 1] if place else before
        right = block[place + 1] if place + 1 < len(block) else after
        if not state.is_inside:
            if left == -1 or left in ends:
                lines += block.count(b"\n", counted, place)
                counted = since = place
                state.is_inside, state.has_line_end, state.began = True, False, first + lines
        elif right == block[place]:
            skip = place + 1
            state.is_doubled = skip == len(block)
        else:
            is_long = state.has_line_end or block.find(b"\n", since, place) >= 0
            if is_long and right != -1 and right not in ends:
                raise InputError(f"{name}: line {state.began}: a quote is not closed before the line ends", hint=_HINT)
            state.is_inside = False
    if state.is_inside and not state.has_line_end:
        state.has_line_end = block.find(b"\n", since) >= 0
    state.line = first + block.count(b"\n")
