"""What a load did, in one piece that an operator pastes into a ticket. It is kept with the load (`qengine loads ID`).

Rows add up: what was read is what was stored, quarantined, filtered and skipped, and the table has grown by what was stored less
what was taken out, as its parts say; `LoadSummary.check` raises otherwise, before anything is published.
"""

from __future__ import annotations

import os
import platform
import resource
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from qengine.catalog.inputs import InputRecord
from qengine.catalog.loads import Load
from qengine.errors import IntegrityError
from qengine.loader.progress import StageTime
from qengine.loader.request import LoadReport
from qengine.transport.version import qengine_version

_SUMMED = ("read", "stored", "quarantined", "filtered", "skipped", "removed", "without_director", "parts", "bytes")
_HINT = "nothing was published; please report this, with the inputs if you can"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSummary:
    """The figures of a load. `tables` hold rows and bytes by name, `stages` what `StageTime` says; `before` is the snapshot that
    the load began from, 0 if there was none. If the load was resumed, seconds are those of the last attempt."""

    load: str
    catalog: str
    before: int
    inputs: int
    input_bytes: int
    with_sha256: int
    tables: Mapping[str, Mapping[str, int]]
    stages: Sequence[Mapping[str, Any]]
    seconds: float
    peak_bytes: int
    cores: int
    versions: Mapping[str, str]
    warnings: Sequence[str]

    @classmethod
    def of(
        cls, load: Load, before: int, reports: Sequence[LoadReport], inputs: Sequence[InputRecord], stages: Sequence[StageTime],
        *, seconds: float, warnings: Sequence[str], rows: Mapping[str, tuple[int, int]],
    ) -> LoadSummary:  # fmt: skip
        """Return the summary of a load that is about to be published; `rows` are those of the tables before and after it."""
        tables = {}
        for one in reports:
            tables[one.table] = {name: int(getattr(one, name)) for name in _SUMMED}
            if one.table in rows:
                tables[one.table] |= dict(zip(("rows_before", "rows_after"), rows[one.table], strict=True))
        return cls(
            load=load.id, catalog=load.catalog, before=before, inputs=len(inputs), input_bytes=sum(one.bytes for one in inputs),
            with_sha256=sum(bool(one.sha256) for one in inputs),
            tables=tables, stages=tuple(one.to_json() for one in stages), seconds=round(seconds, 3),
            peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, cores=len(os.sched_getaffinity(0)),
            versions={
                "qengine": qengine_version(), "python": platform.python_version(),
                **{name: version(name) for name in ("duckdb", "pyarrow", "numpy")},
            },
            warnings=tuple(warnings),
        )  # fmt: skip

    def check(self) -> None:
        """Raise `IntegrityError` if rows of a table do not add up."""
        for name, one in self.tables.items():
            known = one["stored"] + one["quarantined"] + one["filtered"] + one["skipped"]
            if one["read"] != known:
                raise IntegrityError(
                    f"{self.catalog}.{name}: {one['read']:,} rows were read, but {known:,} are accounted for",
                    hint=_HINT,
                )
            if "rows_after" in one and one["rows_after"] != one["rows_before"] + one["stored"] - one["removed"]:
                raise IntegrityError(
                    f"{self.catalog}.{name}: {one['rows_before']:,} rows, {one['stored']:,} stored and {one['removed']:,} taken "
                    f"out do not make {one['rows_after']:,}",
                    hint=_HINT,
                )

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, words: Mapping[str, Any]) -> LoadSummary:
        """Return what `to_json` wrote."""
        return cls(**words)

    def to_text(self, snapshot: int | None = None) -> str:
        """Return it for people. `snapshot` is what the load has published."""
        after = snapshot or self.before
        lines = [
            f"load {self.load} of {self.catalog}: snapshot {self.before or 'none'} -> {after or 'none'}, {self.seconds:,.1f} s",
            f"  inputs: {self.inputs:,}, {self.with_sha256:,} with sha256, {self.input_bytes / 1e6:,.1f} MB",
        ]
        for name, one in self.tables.items():
            lines.append(
                f"  {name}: {one['read']:,} rows in = {one['stored']:,} stored + {one['quarantined']:,} quarantined "
                f"+ {one['filtered']:,} filtered + {one['skipped']:,} skipped; {one['removed']:,} taken out, "
                f"{one['without_director']:,} orphans; {one['parts']:,} parts, {one['bytes'] / 1e6:,.1f} MB written"
            )
        for stage in self.stages:
            seconds = stage["seconds"]
            rates = f", {stage['rows'] / seconds:,.0f} rows/s, {stage['bytes'] / seconds / 1e6:,.1f} MB/s" if seconds else ""
            where = f"{stage['table']} " if stage["table"] else ""
            lines.append(f"  {where}{stage['stage']}: {seconds:,.2f} s, {stage['rows']:,} rows{rates}")
        versions = ", ".join(f"{name} {one}" for name, one in self.versions.items())
        lines.append(f"  peak memory {self.peak_bytes / 1e9:,.2f} GB, {self.cores:,} cores; {versions}")
        lines += [f"  warning: {one}" for one in self.warnings]
        return "\n".join(lines)
