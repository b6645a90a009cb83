"""What the verbs about schemas do (declared in `cli_schema`)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from qengine.catalog.felis_schema import FELIS, SIDECAR, address_of, declared, tables_of, to_felis
from qengine.catalog.model import Table, TableKind
from qengine.catalog.propose import propose as proposal
from qengine.catalog.schema import infer_table
from qengine.errors import ConfigError
from qengine.loader.fit import Given, merged
from qengine.loader.request import ExtraColumns
from qengine.loader.sources.open import open_sources
from qengine.sql.computed import with_types
from qengine.verbs import tell

_MAIN_ID = "meta.id;meta.main"


def propose(schema: str, output: Path | None) -> None:
    """Write a sidecar for a schema, to a file or to standard output."""
    address = address_of(schema)
    text = proposal(tables_of(address), schema=address if "://" in address else "")
    if output is None:
        print(text, end="")
        return
    _write(output, text)
    tell(f"{output} written: read it, answer its question marks, and say confirmed = true")


def infer(inputs: Sequence[str], output: Path, *, table: str, name: str) -> None:
    """Write what inputs say of their table as Felis and sidecar."""
    sources = open_sources(tuple(inputs))
    columns = merged([Given(name=source.name, schema=source.schema) for source in sources], ExtraColumns.ERROR)
    title = _name(table or Path(sources[0].identity.uri).name.split(".")[0])
    found = infer_table(columns, schema=_name(name or output.resolve().name), name=title, kind=TableKind.DIRECTOR)
    ids = [column.name for column in found.columns if column.ucd == _MAIN_ID]
    made = replace(found, key=ids[0]) if len(ids) == 1 else found
    for file in (output / FELIS, output / SIDECAR):
        if file.exists():
            raise ConfigError(f"{file} is there already", hint="choose another folder: what people have completed is not replaced")
    output.mkdir(parents=True, exist_ok=True)
    _write(output / FELIS, to_felis(made))
    _write(output / SIDECAR, proposal([made]))
    lacking = sum(not column.description for column in made.columns)
    tell(f"{output / FELIS} written: {len(made.columns)} columns, {lacking} without a description")
    tell(f"{output / SIDECAR} written: read it, answer its question marks, and say confirmed = true")


def show(schema: str) -> None:
    """Print the tables of a schema, how they are sharded, and what is computed."""
    found = declared(schema)
    for table in found.tables:
        typed = with_types(table, str(found.sidecar.path or schema))
        print(f"{found.name}.{table.name}: {_placing(table)}; {len(table.columns)} columns")
        for column in typed.virtual:
            print(
                f"  {column.name} {column.type}{f' [{column.unit}]' if column.unit else ''} = {' '.join(column.expression.split())}"
            )
        for time in table.times:
            print(f"  {time.column}: {time.scale}{f', {time.form}' if time.form else ''}")
    for view in found.views:
        print(f"{found.name}.{view.name}: view, {' '.join(view.sql.split())}")


def _placing(table: Table) -> str:
    words = [table.kind.value + (f" of {table.director} by {table.director_key}" if table.director else "")]
    words += [f"key {table.key}"] if table.key else []
    words += [f"position {table.ra}, {table.dec}"] if table.ra else []
    return ", ".join(words)


def _name(text: str) -> str:
    """Return a text as a name that statements can write without quotes."""
    found = re.sub(r"[^A-Za-z0-9_]+", "_", text).strip("_") or "table"
    return found if found[0].isalpha() else f"t_{found}"


def _write(path: Path, text: str) -> None:
    if path.exists():
        raise ConfigError(f"{path} is there already", hint="choose another name: what people have completed is not replaced")
    path.write_text(text, encoding="utf-8")
