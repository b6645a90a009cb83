"""DuckDB behind one class: a locked-down connection that runs one SELECT at a time and streams Arrow.

This is the only module that imports duckdb. A slot of a worker, a thread of the in-process channel and the coordinator's
merge each own one `DuckEngine`. What it guarantees:

* *Locked down.* External access is off except for the directories given at the start (reading a file elsewhere, ATTACH, LOAD,
  INSTALL and every SET are refused by DuckDB). Before anything runs, DuckDB's own parser must see exactly one statement of type
  SELECT. COPY into an allowed directory is refused by that check, and, where the installation can, by file ownership too.
* *Our errors.* Every failure of DuckDB, also in the middle of a stream, becomes an error of `qengine.errors`. Errors that are
  impossible in SQL that we rendered (parser, binder, catalog) are bugs and carry the SQL.
* *Interruptible.* `interrupt` and `progress` may be called by other threads. DuckDB looks at the interrupt between vectors, so
  a single call of a scalar function is not bound by it; only the end of the process is (`qengine.worker.slots`).

The limits and directories are fixed when the connection opens, because DuckDB takes `allowed_directories` only before external
access goes off and nothing after the lock. Measured: a fresh connection with all settings and macros costs 8-15 ms, a trivial
query 0.1 ms. So a slot keeps its connection, and the runner opens a new one only when a task names files below another root
(once per attached catalogue and slot), or when DuckDB has declared its instance broken.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from qengine.errors import (
    BugError,
    ExecutionError,
    IntegrityError,
    QEngineError,
    QueryCancelledError,
    QueryTooLargeError,
)
from qengine.sql.macros import MACROS

BATCH_ROWS = 65536
"""Rows of a record batch that leaves the engine, at most."""

_DAMAGE = ("magic bytes", "parquet", "thrift", "tprotocol", "snappy", "zstd", "lz4", "gzip", "corrupt", "no files found", "footer")
_NO_SPACE = ("out of memory", "no space left", "disk quota", "max_temp_directory_size")
_BUGS = frozenset({"Binder", "Parser", "Catalog", "Syntax", "INTERNAL", "FATAL", "Not implemented", "Dependency", "Connection"})
_STATEMENT_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """What an engine may use. `roots` are the directories below which it may read files; `temp_dir` is below which it spills, in a
    directory of its own (nowhere if None: then a query that does not fit in `memory_bytes` fails)."""

    roots: tuple[Path, ...] = ()
    threads: int = 1
    memory_bytes: int = 2 << 30
    temp_dir: Path | None = None
    temp_bytes: int = 32 << 30
    macros: tuple[str, ...] = MACROS
    disabled_optimizers: tuple[str, ...] = ()


class DuckEngine:
    """One DuckDB in memory. Not for use by two threads at once, except `interrupt` and `progress`."""

    def __init__(self, settings: EngineSettings) -> None:
        self.settings = settings
        self.is_broken = False
        self._was_interrupted = False
        # DuckDB names its temporary files 0, 1, ..: two engines in one directory would read each other's.
        self._temp = None if settings.temp_dir is None else temp_dir_of(settings.temp_dir, os.getpid(), secrets.token_hex(4))
        if self._temp is not None:
            self._temp.mkdir(parents=True, exist_ok=True)
        self._connection = duckdb.connect(":memory:", config={"threads": settings.threads})
        try:
            for statement in (*_settings(settings, self._temp), *settings.macros, "SET lock_configuration = true"):
                self._connection.execute(statement)
        except duckdb.Error:
            self.close()
            raise

    def stream(self, sql: str, parameters: Sequence[object] = ()) -> pa.RecordBatchReader:
        """Run one SELECT and return its rows as a reader of batches of up to `BATCH_ROWS` rows.

        Rows are computed while they are read. Read to the end or close the reader before the next statement. Failures raise
        errors of `qengine.errors`, here or while reading.
        """
        statement = self._one_select(sql)
        with self._our_errors(sql):
            result = self._connection.execute(statement, list(parameters)) if parameters else self._connection.execute(statement)
            reader = result.to_arrow_reader(BATCH_ROWS)
        return pa.RecordBatchReader.from_batches(reader.schema, self._batches(reader, sql))

    def register(self, name: str, rows: pa.Table | pa.RecordBatchReader) -> None:
        """Make Arrow data readable as the relation `name`; a reader can be read once."""
        with self._our_errors(f"register {name}"):
            self._connection.register(name, rows)

    def unregister(self, name: str) -> None:
        """Forget a registered relation; unknown names are no error.

        An interrupt that comes meanwhile leaves the relation behind without an error, and its name cannot be registered again: an
        engine that was interrupted counts as broken from here on.
        """
        with self._our_errors(f"unregister {name}"):
            self._connection.unregister(name)
        self.is_broken = self.is_broken or self._was_interrupted

    def interrupt(self) -> None:
        """Ask the running statement to stop. Between statements it does nothing, so a caller that must win repeats it."""
        self._was_interrupted = True
        with contextlib.suppress(duckdb.ConnectionException):
            self._connection.interrupt()

    def progress(self) -> float:
        """How much of the running statement is done, 0 to 1; 0 when unknown."""
        with contextlib.suppress(duckdb.Error):
            return min(max(float(self._connection.query_progress()) / 100.0, 0.0), 1.0)
        return 0.0

    def close(self) -> None:
        self._connection.close()
        if self._temp is not None:
            shutil.rmtree(self._temp, ignore_errors=True)

    def _one_select(self, sql: str) -> Any:
        if len(sql) > _STATEMENT_BYTES:
            raise QueryTooLargeError(f"the SQL of a task has {len(sql)} characters", hint="use fewer literals or an upload")
        with self._our_errors(sql):
            statements = duckdb.extract_statements(sql)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            kinds = ", ".join(statement.type.name for statement in statements) or "none"
            raise BugError(f"the engine runs exactly one SELECT, not: {kinds}", details={"sql": sql})
        return statements[0]

    def _batches(self, reader: pa.RecordBatchReader, sql: str) -> Iterator[pa.RecordBatch]:
        try:
            while True:
                with self._our_errors(sql):
                    try:
                        batch = reader.read_next_batch()
                    except StopIteration:
                        return
                yield batch
        finally:
            # Frees DuckDB's pending result; else an abandoned stream holds its memory until the next statement.
            reader.close()

    @contextlib.contextmanager
    def _our_errors(self, sql: str) -> Iterator[None]:
        try:
            yield
        except (duckdb.Error, OSError, MemoryError, pa.ArrowException) as error:
            ours = engine_error(error, sql)
            self.is_broken = self.is_broken or ours.details["kind"] in ("INTERNAL", "FATAL")
            raise ours from error


def engine_error(error: BaseException, sql: str) -> QEngineError:
    """Return our error for one of DuckDB's.

    Errors at the start of a query are duckdb exceptions, but those in the middle of a stream come through Arrow as plain `OSError`
    with the same text, so the text's first words (`Conversion Error: ...`) decide.
    """
    text = str(error)
    kind = text.split(" Error:", 1)[0] if " Error:" in text[:60] else type(error).__name__
    said = _first_line(text)
    lower = text.lower()
    details: dict[str, Any] = {"kind": kind}
    if kind in ("INTERRUPT", "Interrupt"):
        return QueryCancelledError("the query was interrupted", details=details)
    if kind == "Out of Memory" or isinstance(error, MemoryError) or any(mark in lower for mark in _NO_SPACE):
        return QueryTooLargeError(
            f"the query needs more memory or temporary space than it may use: {said}",
            hint="select fewer columns or rows, or aggregate first",
            details=details,
        )
    if kind in ("IO", "Permission", "HTTP") or (kind.startswith("Inval") and any(mark in lower for mark in _DAMAGE)):
        return IntegrityError(f"a file cannot be read: {said}", details=details)
    if kind in _BUGS:
        return BugError(f"DuckDB refused SQL that we rendered: {said}", details={**details, "sql": sql})
    return ExecutionError(said, details=details)


def quote_name(name: str) -> str:
    """Return a name as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def quote_text(text: str) -> str:
    """Return a text as an SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "unknown failure")[:500]


def temp_dir_of(root: Path, process: int, token: str = "") -> Path:
    """Return where an engine of a process spills to. Without a token it is the beginning of the names of all of the process."""
    return root / f"{process}-{token}"


def _settings(settings: EngineSettings, temp_dir: Path | None) -> Iterator[str]:
    """Yield the SET statements in the only order that works: limits and directories, then external access off (the caller
    runs the macros and then the lock)."""
    yield f"SET memory_limit = '{settings.memory_bytes} B'"
    if temp_dir is None:
        yield "SET temp_directory = ''"
    else:
        yield f"SET temp_directory = {quote_text(str(temp_dir))}"
        yield f"SET max_temp_directory_size = '{settings.temp_bytes} B'"
    yield "SET TimeZone = 'UTC'"
    yield "SET autoinstall_known_extensions = false"
    yield "SET autoload_known_extensions = false"
    yield "SET allow_community_extensions = false"
    yield "SET python_enable_replacements = false"
    yield "SET parquet_metadata_cache = true"
    yield "SET enable_progress_bar = true"
    yield "SET enable_progress_bar_print = false"
    yield f"SET disabled_optimizers = {quote_text(','.join(settings.disabled_optimizers))}"
    roots = ", ".join(quote_text(str(root).rstrip("/") + "/") for root in settings.roots)
    yield f"SET allowed_directories = [{roots}]"
    yield "SET enable_external_access = false"
