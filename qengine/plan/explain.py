"""EXPLAIN: a physical plan as stable text and as JSON, for people before they run a query and for golden tests.

Figures are estimates from the manifest: parts and row groups that meet the work, their rows, and the bytes of the used columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qengine.plan.exchange import exchange_json, exchange_lines
from qengine.plan.fragment import LeafFragment, PhysicalPlan, Reach


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedStep:
    """A statement that runs before the main one. `rows` is known after ANALYZE."""

    name: str
    reason: str
    plan: PhysicalPlan
    actual: tuple[Mapping[str, Any], ...] = ()
    rows: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What would happen, and after ANALYZE what did. `actual` has one mapping of figures per leaf. `steps` run before; as long as
    they have not, nothing in `plan` is pruned by their rows."""

    statement: str
    language: str
    snapshots: Mapping[str, int]
    warnings: tuple[str, ...]
    plan: PhysicalPlan
    actual: tuple[Mapping[str, Any], ...] = ()
    steps: tuple[ExplainedStep, ...] = ()
    exchanged: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain values."""
        leaves = []
        for number, leaf in enumerate(self.plan.leaves):
            entry = _leaf_json(leaf)
            if self.actual:
                entry["actual"] = dict(self.actual[number])
            leaves.append(entry)
        total = sum(leaf.estimate.bytes for leaf in self.plan.leaves)
        return {
            "statement": self.statement,
            "language": self.language,
            "snapshots": dict(self.snapshots),
            "warnings": list(self.warnings),
            "columns": [{"name": c.name, "type": str(c.type), "unit": c.unit, "ucd": c.ucd} for c in self.plan.columns],
            "steps": [_step_json(step) for step in self.steps],
            "fragments": leaves,
            "final": self.plan.final_sql,
            "exchange": self._exchange_json(),
            "coordinator_tables": [table.table.full_name for _, table in self.plan.inline],
            "tasks": self.plan.tasks,
            "estimated": {
                "bytes": total,
                "rows": sum(leaf.estimate.rows for leaf in self.plan.leaves),
                "seconds": round(self.plan.cost.seconds(total), 4),
            },
        }

    def _exchange_json(self) -> dict[str, Any] | None:
        if self.plan.exchange is None:
            return None
        found = exchange_json(self.plan.exchange, self.plan.leaves)
        return found if self.exchanged is None else {**found, "actual": dict(self.exchanged)}

    def to_text(self) -> str:
        """Return the plan as indented lines."""
        tree = self.to_json()
        lines = [f"Query in {self.language}, {_count(self.plan.tasks, 'task')}, reads about {_bytes(tree['estimated']['bytes'])}"]
        lines.append("  snapshots: " + (", ".join(f"{name}:{n}" for name, n in sorted(self.snapshots.items())) or "none"))
        lines += [f"  warning: {warning}" for warning in self.warnings]
        for step in tree["steps"]:
            rows = "" if step["rows"] is None else f", {_count(step['rows'], 'row')}"
            lines.append(f"  step {step['name']} first, for {step['reason']}{rows}")
            for entry in step["fragments"]:
                lines += [f"  {line}" for line in _leaf_lines(entry)]
            if step["final"] is not None:
                lines.append(f"    final on the coordinator: {step['final']}")
        for entry in tree["fragments"]:
            lines += _leaf_lines(entry)
        if self.plan.inline:
            lines.append("  coordinator tables: " + ", ".join(tree["coordinator_tables"]))
        if self.plan.final_sql is None:
            lines.append("  final: none, the rows of r0 are the answer")
        else:
            lines.append(f"  final on the coordinator: {self.plan.final_sql}")
        if tree["exchange"] is not None:
            lines += exchange_lines(tree["exchange"])
        lines.append(f"  estimated: {_count(tree['estimated']['rows'], 'row')} read, {tree['estimated']['seconds']:.3f} s")
        return "\n".join(lines)


def _step_json(step: ExplainedStep) -> dict[str, Any]:
    fragments = [_leaf_json(leaf) for leaf in step.plan.leaves]
    for entry, figures in zip(fragments, step.actual, strict=False):
        entry["actual"] = dict(figures)
    return {
        "name": step.name,
        "reason": step.reason,
        "rows": step.rows,
        "tasks": step.plan.tasks,
        "fragments": fragments,
        "final": step.plan.final_sql,
    }


def _leaf_json(leaf: LeafFragment) -> dict[str, Any]:
    e = leaf.estimate
    return {
        "relation": leaf.relation,
        "kind": leaf.kind,
        "owner": leaf.owner,
        "gathered_because": leaf.gathered,
        "inputs": [
            {
                "alias": i.alias,
                "table": i.table.table.full_name,
                "snapshot": i.table.number,
                "reads": i.reach.value,
                "margin_arcsec": round(i.margin_deg * 3600, 6),
                "columns": list(i.columns),
                "of_columns": len(i.table.table.columns),
            }
            for i in leaf.inputs
        ],
        "tasks": leaf.task_count,
        "parts": e.parts,
        "of_parts": e.parts_total,
        "row_groups": e.row_groups,
        "rows": e.rows,
        "bytes": e.bytes,
        "row_limit": leaf.row_limit,
        "sql": leaf.sql,
    }


def _leaf_lines(entry: Mapping[str, Any]) -> Sequence[str]:
    owner = f", owner {entry['owner']}" if entry["owner"] else ", single"
    lines = [f"  {entry['relation']}: {entry['kind']}{owner}, {_count(entry['tasks'], 'task')}"]
    if entry["gathered_because"]:
        lines.append(f"    gathered because {entry['gathered_because']}")
    for i in entry["inputs"]:
        reach = f"ring of {i['margin_arcsec']:g} arcsec" if i["reads"] == Reach.RING.value else i["reads"]
        lines.append(
            f"    {i['alias']}: {i['table']} at snapshot {i['snapshot']}, {reach}, columns {', '.join(i['columns']) or 'none'}"
        )
    lines.append(
        f"    parts {entry['parts']} of {entry['of_parts']}, row groups {entry['row_groups']}, "
        f"rows <= {entry['rows']}, {_bytes(entry['bytes'])}"
    )
    if entry["row_limit"] is not None:
        lines.append(f"    stops after {_count(entry['row_limit'], 'row')}")
    lines.append(f"    {entry['sql']}")
    if actual := entry.get("actual"):
        lines.append("    actual: " + ", ".join(f"{name} {value}" for name, value in actual.items()))
    return lines


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
