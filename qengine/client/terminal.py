"""Results and errors for a person at a terminal, and results into files.

Rows shown as a table are few by choice; files get all of them, written beside their final name and moved there when complete.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
from rich.console import Console
from rich.table import Table
from rich.text import Text

from qengine.catalog.output import OutputColumn
from qengine.catalog.summary import TableSummary
from qengine.client.result import Result
from qengine.coordinator.progress import QueryProgress
from qengine.errors import Blame, ConfigError, QEngineError, Span

_EXIT = {Blame.USER: 1, Blame.LIMIT: 1, Blame.DATA: 1, Blame.CLUSTER: 3, Blame.BUG: 4}


class FileWriter(Protocol):
    """What turns batches into bytes: a writer of `tap.formats`."""

    def begin(self) -> bytes: ...
    def write(self, batch: pa.RecordBatch) -> bytes: ...
    def held(self) -> Iterator[bytes]: ...
    def finish(self, *, is_overflow: bool) -> bytes: ...
    def close(self) -> None: ...


class Sink(Protocol):
    """Where bytes go."""

    def write(self, content: bytes, /) -> Any: ...


def print_error(console: Console, error: QEngineError, statement: str = "") -> int:
    """Print one message with its code, the place in the statement, and the hint. Return the exit status of the process."""
    where = f"{error.span}: " if error.span else ""
    console.print(Text.assemble((f"error[{error.code}]", "bold red"), ": ", f"{where}{error.message}"), soft_wrap=True)
    if error.span and (lines := statement.splitlines()) and error.span.line <= len(lines):
        for line in _marked(lines[error.span.line - 1], error.span):
            console.print(Text(line), soft_wrap=True)
    if error.hint:
        console.print(Text.assemble(("hint", "bold"), f": {error.hint}"), soft_wrap=True)
    return _EXIT[error.blame]


def _marked(line: str, span: Span) -> Iterator[str]:
    """The line of the statement, and a caret below each character of the place. Tabs become blanks of the same number."""
    number = str(span.line)
    before = span.column - 1
    width = max(1, min(span.end - span.start, len(line) - before))
    yield f" {number} | {line}".replace("\t", " ")
    yield f" {' ' * len(number)} | {' ' * before}{'^' * width}"


def print_rows(console: Console, result: Result, *, limit: int, before: Callable[[], None] = lambda: None) -> int:
    """Print up to `limit` rows as a table, and below it how many there are; call `before` when all rows are there.

    Return the number of all rows.
    """
    shown: list[Sequence[Any]] = []
    total = 0
    for batch in result:
        if len(shown) < limit:
            head = batch.slice(0, limit - len(shown))
            shown += zip(*(column.to_pylist() for column in head.columns), strict=True)
        total += batch.num_rows
    before()
    table = Table(show_edge=False, pad_edge=False, box=None, header_style="bold")
    for column in result.columns:
        is_right = column.type.is_numeric
        table.add_column(_heading(column), justify="right" if is_right else "left", overflow="fold")
    significant = [7 if column.type.name == "FLOAT" else 12 for column in result.columns]
    for row in shown:
        cells = (_shown(value, digits) for value, digits in zip(row, significant, strict=True))
        table.add_row(*(Text(cell) for cell in cells))
    console.print(table)
    rest = f", the first {len(shown):,} are shown" if total > len(shown) else ""
    cut = ", cut by MAXREC" if result.is_overflow else ""
    console.print(Text(f"{total:,} {'row' if total == 1 else 'rows'}{rest}{cut}", style="dim"))
    return total


def write_rows(result: Result, writer: FileWriter, sink: Sink) -> int:
    """Write all rows to `sink`. Return how many there are."""
    total = 0
    try:
        sink.write(writer.begin())
        for batch in result:
            sink.write(writer.write(batch))
            total += batch.num_rows
        for piece in writer.held():
            sink.write(piece)
        sink.write(writer.finish(is_overflow=result.is_overflow))
    finally:
        writer.close()
    return total


def write_file(result: Result, writer: FileWriter, path: Path) -> int:
    """Write all rows to a file that appears when it is complete. Return how many there are.

    What exists and is no file, such as /dev/stdout or a pipe, is written to as it is. A link stays a link.
    """
    if path.is_dir() or not path.parent.is_dir():
        what = "is a directory" if path.is_dir() else f"cannot be written: there is no directory {path.parent}"
        raise ConfigError(f"{path} {what}", hint="name a file with -o")
    if path.exists() and not path.is_file():
        with path.open("wb") as sink:
            return write_rows(result, writer, sink)
    final = path.resolve()
    unfinished = final.with_name(f".{final.name}.{os.getpid()}.part")
    try:
        with unfinished.open("wb") as file:
            total = write_rows(result, writer, file)
        unfinished.replace(final)
    finally:
        unfinished.unlink(missing_ok=True)
    return total


def progress_words(progress: QueryProgress) -> str:
    """Return bytes, tasks, rows and the time left, in few words."""
    words = [f"{size(progress.bytes_done)} of {size(progress.bytes_total)}", f"tasks {progress.tasks_done:,}/{progress.tasks:,}"]
    if progress.rows:
        words.append(f"{progress.rows:,} rows")
    if progress.eta_s is not None:
        words.append(f"about {duration(progress.eta_s)} left")
    return ", ".join(words)


def progress_line(progress: QueryProgress) -> str:
    """Return one line about a query."""
    return f"{progress.phase.value} for {duration(progress.elapsed_s)}, {100 * progress.fraction:.0f} %, {progress_words(progress)}"


def duration(seconds: float) -> str:
    """Return a time for people; never 0 s."""
    whole = max(1, round(seconds))
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60}:{whole % 60:02d} min" if whole < 3600 else f"{whole // 3600}:{whole % 3600 // 60:02d} h"


def print_tables(console: Console, tables: Sequence[TableSummary]) -> None:
    """Print one line per table."""
    table = Table(show_edge=False, pad_edge=False, box=None, header_style="bold")
    for heading in ("table", "kind"):
        table.add_column(heading)
    for heading in ("rows", "size", "parts", "snapshot"):
        table.add_column(heading, justify="right")
    table.add_column("description", overflow="fold")
    for one in tables:
        table.add_row(
            one.full_name, one.kind, f"{one.rows:,}", size(one.bytes), f"{one.parts:,}", str(one.snapshot), Text(one.description)
        )
    console.print(table)


def print_columns(console: Console, one: TableSummary) -> None:
    """Print the columns of a table."""
    console.print(Text.assemble((one.full_name, "bold"), f"  {one.kind}, {one.rows:,} rows", f"  {one.description}"))
    table = Table(show_edge=False, pad_edge=False, box=None, header_style="bold")
    for heading in ("column", "type", "unit", "UCD"):
        table.add_column(heading)
    table.add_column("description", overflow="fold")
    for column in one.columns:
        table.add_row(column.name, str(column.type), column.unit, column.ucd, Text(column.description))
    console.print(table)


def size(count: float) -> str:
    """Return a number of bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _heading(column: OutputColumn) -> Text:
    return Text.assemble(column.name, (f"\n{column.unit}", "dim")) if column.unit else Text(column.name)


def _shown(value: Any, digits: int) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.{digits}g}"
    if isinstance(value, list):
        return " ".join(_shown(item, digits) for item in value)
    return str(value)
