"""Command-line verbs about schemas: propose a sidecar, infer a schema from an input, show what a schema declares; the work is in
`verbs_schema`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SchemaArgument = Annotated[
    str, typer.Argument(metavar="SCHEMA", help="Felis file, address, or the name of a shipped schema.", show_default=False)
]


def add_to(app: typer.Typer) -> None:
    """Give an application these verbs."""
    group = typer.Typer(no_args_is_help=True, help="Schemas: propose, infer, show.")
    for verb in (propose, infer, show):
        group.command()(verb)
    app.add_typer(group, name="schema")


def propose(
    schema: SchemaArgument,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write, such as sharding.toml.")] = None,
) -> None:
    """Propose how the tables of a Felis schema are sharded, from UCDs and foreign keys, for you to confirm."""
    from qengine import verbs_schema

    verbs_schema.propose(schema, output)


def infer(
    inputs: Annotated[list[str], typer.Argument(help="Files of one table, as for load.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for schema.yaml and sharding.toml.", show_default=False)],
    table: Annotated[str, typer.Option(help="Name of the table; the name of the first file if it is not said.")] = "",
    name: Annotated[str, typer.Option(help="Name of the schema; the name of the folder if it is not said.")] = "",
) -> None:
    """Write the schema that an input has as Felis, with a sidecar, for you to complete."""
    from qengine import verbs_schema

    verbs_schema.infer(inputs, output, table=table, name=name)


def show(schema: SchemaArgument) -> None:
    """Show the tables of a schema and how they are sharded; also a check of both files."""
    from qengine import verbs_schema

    verbs_schema.show(schema)
