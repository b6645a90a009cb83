"""EXPLAIN as text: the plain values of `plan.explain` as indented lines, stable enough to be compared.

One line says what a fragment is, one per input what it reads, one how much of the table is left, one per predicate where it went,
and then the SQL. What happened stands below the estimates, in lines that begin with `actual`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from qengine.plan.limits import show_bytes, show_seconds

Entry = Mapping[str, Any]


def to_text(tree: Entry) -> str:
    """Return the lines of a plan."""
    return "\n".join(_lines(tree))


def _lines(tree: Entry) -> Iterator[str]:
    cost = tree["estimated"]
    about = f"about {show_bytes(cost['bytes'])} in {show_seconds(cost['seconds'])}"
    yield f"Query in {tree['language']}, {_count(tree['tasks'], 'task')}, reads {about}"
    yield "  snapshots: " + (", ".join(f"{name}:{n}" for name, n in sorted(tree["snapshots"].items())) or "none")
    for warning in tree["warnings"]:
        yield f"  warning: {warning}"
    for step in tree["steps"]:
        rows = "" if step["rows"] is None else f", {_count(step['rows'], 'row')}"
        yield f"  step {step['name']} first, for {step['reason']}{rows}"
        for entry in step["fragments"]:
            yield from (f"  {line}" for line in _leaf(entry))
        if step["final"] is not None:
            yield f"    final on the coordinator: {step['final']}"
    for entry in tree["fragments"]:
        yield from _leaf(entry)
    if tree["exchange"] is not None:
        yield from _exchange(tree["exchange"])
    if tree["coordinator_tables"]:
        yield "  coordinator tables: " + ", ".join(tree["coordinator_tables"])
    for predicate in tree["final_predicates"]:
        yield f"  in the final part: {predicate}"
    if tree["final"] is None:
        yield "  final: none, the rows of r0 are the answer"
    else:
        yield f"  final on the coordinator: {tree['final']}"
    stations = [f"{name} {cost[f'{name}_s']:.3f}" for name in ("steps", "leaves", "merge", "export") if cost[f"{name}_s"]]
    rows = f"{_count(cost['rows'], 'row')} read, about {cost['result_rows']} gathered"
    yield f"  estimated: {rows}, {cost['seconds']:.3f} s" + (f" ({', '.join(stations)})" if len(stations) > 1 else "")
    if actual := tree.get("actual"):
        times = actual["seconds"]
        stations = [f"{name} {times[name]:.3f}" for name in ("planning", "steps", "leaves", "merge", "delivery") if times[name]]
        yield f"  actual: {_count(actual['rows'], 'row')} in the answer, {times['total']:.3f} s ({', '.join(stations)})"


def _leaf(entry: Entry) -> Iterator[str]:
    owner = f", owner {entry['owner']}" if entry["owner"] else ", single"
    yield f"  {entry['relation']}: {entry['kind']}{owner}, {_count(entry['tasks'], 'task')}, {entry['lane']} lane"
    if entry["gathered_because"]:
        yield f"    gathered because {entry['gathered_because']}"
    for i in entry["inputs"]:
        reach = f"ring of {i['margin_arcsec']:g} arcsec" if i["margin_arcsec"] else i["reads"]
        columns = ", ".join(i["columns"]) or "none"
        yield f"    {i['alias']}: {i['table']} at snapshot {i['snapshot']}, {reach}, columns {columns}"
    tiles = f"tiles {entry['tiles']} of {entry['of_tiles']}, " if entry["of_tiles"] else ""
    yield (
        f"    {tiles}parts {entry['parts']} of {entry['of_parts']}, row groups {entry['row_groups']}, "
        f"rows <= {entry['rows']}, {show_bytes(entry['bytes'])}"
    )
    for radius in entry["pairs_within_arcsec"]:
        within = "the radius of each row" if radius is None else f"{radius:g} arcsec"
        yield f"    pairs within {within} found by the compiled kernel"
    for predicate in entry["predicates"]:
        yield f"    {predicate['text']}: {predicate['use']}"
    if entry["stops_early_by"] is not None:
        yield f"    parts in the order of {entry['stops_early_by']}, until no other can matter"
    if entry["row_limit"] is not None:
        yield f"    stops after {_count(entry['row_limit'], 'row')}"
    yield f"    about {_count(entry['result_rows'], 'row')} put out, {entry['seconds']:.3f} s"
    yield f"    {entry['sql']}"
    if actual := entry.get("actual"):
        yield from _actual(actual)


def _actual(actual: Entry) -> Iterator[str]:
    extra = [f"{_count(actual[name], one)}" for name, one in (("retries", "retry"), ("backups", "backup")) if actual[name]]
    tasks = f"{_count(actual['tasks'], 'task')} in {_count(actual['attempts'], 'attempt')}"
    yield (
        f"    actual: {tasks}{''.join(f', {one}' for one in extra)}, {_count(actual['rows'], 'row')}, "
        f"{show_bytes(actual['result_bytes'])}, {actual['seconds']:.3f} s ({actual['worker_seconds']:.3f} s on workers, "
        f"{actual['cpu_seconds']:.3f} s CPU, dispatch {actual['dispatch_ms_per_task']:.1f} ms per task), {actual['lane']} lane"
        + (", stopped at the limit" if actual["is_limit_met"] else "")
    )
    if slowest := actual["slowest"]:
        where = f"task {slowest['task']} on {slowest['worker']}"
        yield f"      slowest: {where}, {slowest['seconds']:.3f} s, {_count(slowest['rows'], 'row')}"
    for one in actual["workers"]:
        failures = f", {_count(one['failures'], 'failure')}" if one["failures"] else ""
        yield (
            f"      {one['worker']}: {_count(one['tasks'], 'task')} in {_count(one['attempts'], 'attempt')}{failures}, "
            f"{_count(one['rows'], 'row')}, {show_bytes(one['result_bytes'])}, {one['seconds']:.3f} s, "
            f"{one['cpu_seconds']:.3f} s CPU"
        )


def _exchange(exchange: Entry) -> Iterator[str]:
    by = ", ".join(f"{one['relation']} by {', '.join(one['by'])}" for one in exchange["relations"])
    yield f"  exchange by {exchange['kind']} between workers, {_count(exchange['partitions'], 'partition')}, if it is large: {by}"
    for middle in exchange["middles"]:
        yield f"    {middle['relation']}: {middle['kind']} per partition of {', '.join(middle['reads'])}"
        yield f"      {middle['sql']}"
    if exchange["final"] is not None:
        yield f"    final after the exchange: {exchange['final']}"
    if (actual := exchange.get("actual")) is not None:
        yield from _exchanged(actual)


def _exchanged(actual: Entry) -> Iterator[str]:
    if not actual["exchanged"]:
        yield "    actual: gathered, because it was small"
        return
    remade = f", {_count(actual['remade_tasks'], 'task')} made again" if actual["remade_tasks"] else ""
    yield f"    actual: exchanged{remade}"
    for name, one in actual["middles"].items():
        work = f"{_count(one['tasks'], 'task')}, {_count(one['rows'], 'row')}, {one['seconds']:.3f} s"
        yield f"      {name}: {work}, {one['cpu_seconds']:.3f} s CPU"


def _count(number: int, noun: str) -> str:
    if number == 1:
        return f"{number} {noun}"
    return f"{number} {noun[:-1] + 'ies' if noun.endswith('y') else noun + 's'}"
