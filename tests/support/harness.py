"""The loop of the equivalence suites: seed -> query -> two answers -> what differs.

An *engine* is anything that answers ADQL with an Arrow table: one DuckDB over the bound tree, the planner in one process, a cluster.
`check(seed)` asks engine and oracle the query of that seed; a `Finding` has all that is needed to see and repeat it, and `reduce`
makes its query small.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import duckdb
import pyarrow as pa

from tests.support import query_ast as q
from tests.support.compare import difference
from tests.support.oracle import Answer, Oracle, UnfairQueryError
from tests.support.printers import AdqlPrinter
from tests.support.query_gen import SHAPES, QueryGenerator
from tests.support.reduce import smaller
from tests.support.sky_builder import Sky


class Engine(Protocol):
    """What is tested."""

    def query(self, adql: str) -> pa.Table:
        """Answer one ADQL statement."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A wrong answer or an unexpected error."""

    seed: int | str
    adql: str
    oracle_sql: str
    complaint: str

    def __str__(self) -> str:
        return f"seed {self.seed}\n  ADQL    {self.adql}\n  oracle  {self.oracle_sql}\n  {self.complaint}"


@dataclass(slots=True)
class Report:
    """What a run of many seeds came to. `unfair` queries had a point on a boundary and were not asked."""

    asked: int = 0
    unfair: int = 0
    empty: int = 0
    findings: list[Finding] = field(default_factory=list)

    def __str__(self) -> str:
        head = f"{len(self.findings)} differences in {self.asked} queries ({self.empty} with empty results, {self.unfair} unfair ones skipped)"
        return "\n\n".join([head, *(str(finding) for finding in self.findings[:10])])


class Harness:
    """Compares an engine with the oracle over some skies. `generator` makes the queries."""

    def __init__(
        self,
        engine: Engine,
        skies: Sequence[Sky],
        *,
        oracle: Oracle | None = None,
        generator: type[QueryGenerator] = QueryGenerator,
    ) -> None:
        self.engine = engine
        self.generator = generator
        self.skies = {sky.name: sky for sky in skies}
        self.oracle = oracle or Oracle(skies)

    def sky_of(self, seed: int | str) -> Sky:
        return random.Random(f"choice {seed}").choice(list(self.skies.values()))

    def run(
        self,
        seeds: Iterable[int | str],
        *,
        shapes: Mapping[str, float] | None = None,
        sources: Mapping[str, float] | None = None,
        enough: int | None = None,
    ) -> Report:
        """Ask the queries of all seeds and collect what differs; stop when there are `enough` findings."""
        report = Report()
        for seed in seeds:
            query = self.generator(self.sky_of(seed), seed, shapes=shapes or SHAPES, sources=sources).query()
            try:
                answer = self.oracle.answer(query)
            except UnfairQueryError:
                report.unfair += 1
                continue
            report.asked += 1
            report.empty += not answer.rows
            if finding := self.judge(seed, query, answer):
                report.findings.append(finding)
                if len(report.findings) == enough:
                    break
        return report

    def check(self, query: q.Query, seed: int | str = 0) -> Finding | None:
        """Ask one query, wherever it comes from. Raise `UnfairQueryError` when there is no one right answer."""
        return self.judge(seed, query, self.oracle.answer(query))

    def judge(self, seed: int | str, query: q.Query, answer: Answer) -> Finding | None:
        adql = AdqlPrinter(random.Random(f"style {seed}")).query(query)
        try:
            complaint = difference(query, answer, self.engine.query(adql))
        except Exception as error:  # any error is a finding: the generator asks only what must be answered
            complaint = f"{type(error).__name__}: {error}"
        return Finding(seed=seed, adql=adql, oracle_sql=answer.sql, complaint=complaint) if complaint else None

    def replay(self, seed: int | str, *, reduced: bool = True) -> Finding | None:
        """Ask the query of this seed again; if it is still wrong, return the smallest query found that is wrong too."""
        query = self.generator(self.sky_of(seed), seed).query()
        finding = self.check(query, seed)
        if finding is None or not reduced:
            return finding
        return self.reduce(query, finding)

    def reduce(self, query: q.Query, finding: Finding, *, seconds: float = 30.0) -> Finding:
        """Drop parts of the query as long as the same sort of complaint remains."""
        wanted = _sort_of(finding.complaint)
        last = time.monotonic() + seconds
        progress = True
        while progress:
            progress = False
            for candidate in smaller(query):
                if time.monotonic() > last:
                    return finding
                try:
                    found = self.check(candidate, finding.seed)
                except (UnfairQueryError, duckdb.Error, StopIteration, TypeError, AssertionError, IndexError):
                    continue  # not a query any more
                if found is not None and _sort_of(found.complaint) == wanted:
                    query, finding, progress = candidate, found, True
                    break
        return finding


def _sort_of(complaint: str) -> str:
    """Errors are the same when their class and first words are; differences are all the same."""
    head = complaint.split("\n")[0]
    return " ".join(head.split()[:4]) if "Error" in head.split(":")[0] else "rows"
