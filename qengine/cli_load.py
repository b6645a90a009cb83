"""The command line of loads: declarations of the verbs, which are in `verbs_load` (imported when a verb runs, see `cli`)."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Line(StrEnum):
    """What the line of a family is made of, as `catalog.model.LINES` has it; a series is told by its kind."""

    SKY = "sky"
    HASH = "hash"


class Kind(StrEnum):
    """Kinds of tables, as `catalog.model` has them."""

    DIRECTOR = "director"
    CHILD = "child"
    MATCH = "match"
    REPLICATED = "replicated"
    SERIES = "series"


class Duplicates(StrEnum):
    """What happens to a key that is there, as `loader.request` has it."""

    ERROR = "error"
    SKIP_IDENTICAL = "skip-identical"
    REPLACE = "replace"
    QUARANTINE = "quarantine"


class Extra(StrEnum):
    """What happens to columns that the table does not have, as `loader.request` has it."""

    ERROR = "error"
    KEEP = "keep"
    DROP = "drop"


class Workers(StrEnum):
    """Who does the heavy tasks of a load here, as `loader.executor_choice` has it."""

    THREADS = "threads"
    PROCESSES = "processes"


class Missing(StrEnum):
    """What happens to columns of the table that an input lacks, as `loader.request` has it."""

    ERROR = "error"
    NULL = "null"


class Lang(StrEnum):
    """Languages of a statement."""

    ADQL = "adql"
    STRICT = "adql-strict"
    SQL = "sql"


StoreOption = Annotated[
    Path | None, typer.Option("--store", envvar="QENGINE_STORE", help="Directory of the store, or s3://BUCKET/PREFIX.")
]
CatalogOption = Annotated[str, typer.Option("--into", help="Catalogue to load into (the schema in queries).")]
LoaderOption = Annotated[
    str, typer.Option("--loader", envvar="QENGINE_LOADER", help="host:port of a running loader, instead of --store.")
]
AuthorityOption = Annotated[
    Path | None, typer.Option("--authority", envvar="QENGINE_LOADER_AUTHORITY", help="PEM file of the authority of the other side.")
]
CertificateOption = Annotated[
    Path | None, typer.Option("--certificate", envvar="QENGINE_LOADER_CERTIFICATE", help="PEM file of our certificate.")
]
PrivateKeyOption = Annotated[
    Path | None, typer.Option("--private-key", envvar="QENGINE_LOADER_PRIVATE_KEY", help="PEM file of its key.")
]
PeerOption = Annotated[str, typer.Option("--peer-name", help="Name in the loader's certificate, if that is not its address.")]
TableOption = Annotated[str, typer.Option("--table", help="Name of the table.")]
LangOption = Annotated[Lang, typer.Option("--lang", help="Language of the statement.")]
InputsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        help="Files (Parquet, CSV, FITS, VOTable, ECSV, Arrow), directories, globs, s3:// or https:// addresses, HATS "
        "catalogues; or: butler REPO.",
        show_default=False,
    ),
]
LoadArgument = Annotated[str, typer.Argument(metavar="LOAD", help="The load's id; its beginning will do.", show_default=False)]
KindOption = Annotated[Kind | None, typer.Option(help="How rows find their place; the schema may say it.")]
KeyOption = Annotated[str | None, typer.Option(help="Column with the unique key.")]
RaOption = Annotated[str, typer.Option(help="Column with the right ascension, ICRS degrees.")]
DecOption = Annotated[str, typer.Option(help="Column with the declination, ICRS degrees.")]
DirectorOption = Annotated[str, typer.Option(help="Director table of a child.")]
DirectorKeyOption = Annotated[str, typer.Option(help="Column of a child that holds the director's key.")]
LineOption = Annotated[
    Line | None, typer.Option(help="Where a director without a position lies: by the hash of its key. Children follow it.")
]
TimeKeyOption = Annotated[str, typer.Option("--time-key", help="Of a series: the column with the times that it lies by.")]
LeftOption = Annotated[str, typer.Option(help="Of a match table: [CATALOG.]TABLE.COLUMN, a director and the column with its keys.")]
RightOption = Annotated[str, typer.Option(help="Of a match table: the other director and column.")]
SchemaOption = Annotated[str, typer.Option(help="Felis file, with its sharding.toml beside it; an address, or a known name.")]
RowsOption = Annotated[int | None, typer.Option(min=1, help="Most rows in a tile.")]
MarginOption = Annotated[float | None, typer.Option(min=0.0, help="Width of the margins around tiles; 0 writes none.")]
WrapOption = Annotated[bool, typer.Option("--ra-wrap", help="Take right ascensions modulo 360.")]
CollectionOption = Annotated[
    list[str] | None, typer.Option("--collection", help="Of a Butler: a collection; the first with a dataset wins.")
]
TypeOption = Annotated[str, typer.Option("--dataset-type", help="Of a Butler: the dataset type, such as object.")]
WhereOption = Annotated[str, typer.Option("--where", help='Of a Butler: which data ids, such as "tract = 9813".')]
LabelOption = Annotated[str, typer.Option(help="Who a single input is, whatever its path; a new version replaces its rows.")]
FormatOption = Annotated[str, typer.Option("--input-format", help="Format of the files where the name does not say it.")]
HduOption = Annotated[str, typer.Option("--input-table", help="Which table of a FITS file (HDU) or VOTable: number or name.")]
DelimiterOption = Annotated[str, typer.Option(help="Of text: what separates fields.")]
NullOption = Annotated[list[str] | None, typer.Option(help="Of text: a word that means NULL, instead of the usual ones.")]
NamesOption = Annotated[str, typer.Option(help="Of text without a header: the names of the columns, with commas.")]
DuplicateOption = Annotated[Duplicates, typer.Option(help="What to do with a key that the table has already.")]
ExtraOption = Annotated[Extra, typer.Option(help="What to do with columns that the table does not have.")]
MissingOption = Annotated[Missing, typer.Option("--missing-columns", help="What to do if an input lacks columns of the table.")]
EvolveOption = Annotated[bool, typer.Option("--evolve", help="Let the schema change the columns of a table that is there.")]
ConvertOption = Annotated[bool, typer.Option("--convert-position", help="Take positions in other units and frames.")]
OrphansOption = Annotated[bool, typer.Option("--allow-orphans", help="Let children stay whose director goes away.")]
FilterOption = Annotated[
    str, typer.Option("--filter", help="SQL condition: rows for which it is not true are left out, and counted.")
]
WhyOption = Annotated[str, typer.Option(help="Why this is done; kept with the load.")]
ContextOption = Annotated[list[str] | None, typer.Option("--context", help="KEY=VALUE to keep with the load; repeat it.")]
WaitOption = Annotated[float, typer.Option("--wait", min=0.0, help="Seconds to wait for other loads of the same table.")]
ExecutorOption = Annotated[Workers, typer.Option(help="Who does the heavy work here.")]
DaskOption = Annotated[str, typer.Option(metavar="ADDRESS", help="Let a Dask cluster do it: its scheduler's address.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Progress and report as lines of JSON.")]


def add_to(app: typer.Typer) -> None:
    """Give an application these verbs."""
    for verb in (load, begin, contribute, commit, abort, loads, compact, refresh, sweep, loader):
        app.command()(verb)


def load(
    into: CatalogOption,
    table: TableOption,
    inputs: InputsArgument = None,
    store: StoreOption = None,
    query: Annotated[str, typer.Option(help="Load the answer to this statement instead of files.")] = "",
    lang: LangOption = Lang.ADQL,
    collection: CollectionOption = None,
    dataset_type: TypeOption = "",
    where: WhereOption = "",
    label: LabelOption = "",
    input_format: FormatOption = "",
    input_table: HduOption = "",
    delimiter: DelimiterOption = "",
    null_word: NullOption = None,
    names: NamesOption = "",
    kind: KindOption = None,
    key: KeyOption = None,
    ra: RaOption = "",
    dec: DecOption = "",
    director: DirectorOption = "",
    director_key: DirectorKeyOption = "",
    line: LineOption = None,
    time_key: TimeKeyOption = "",
    left: LeftOption = "",
    right: RightOption = "",
    schema: SchemaOption = "",
    rows_per_tile: RowsOption = None,
    margin_arcsec: MarginOption = None,
    ra_wrap: WrapOption = False,
    on_duplicate: DuplicateOption = Duplicates.ERROR,
    extra_columns: ExtraOption = Extra.ERROR,
    missing_columns: MissingOption = Missing.ERROR,
    evolve: EvolveOption = False,
    convert_position: ConvertOption = False,
    allow_orphans: OrphansOption = False,
    row_filter: FilterOption = "",
    why: WhyOption = "",
    context: ContextOption = None,
    wait: WaitOption = 0.0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the same load that was killed.")] = False,
    executor: ExecutorOption = Workers.THREADS,
    dask: DaskOption = "",
    as_json: JsonOption = False,
) -> None:
    """Load inputs into a table and publish it; inputs of a table that is there are added to it."""
    from qengine import verbs_load

    request = verbs_load.request_of(
        catalog=into, table=table, kind=kind, key=key, ra=ra, dec=dec, director=director, director_key=director_key,
        line=line.value if line else "", time_key=time_key, left=left, right=right, schema=schema,
        rows_per_tile=rows_per_tile, margin_arcsec=margin_arcsec, ra_wrap=ra_wrap,
        on_duplicate=on_duplicate, extra_columns=extra_columns, missing_columns=missing_columns, evolve=evolve,
        convert_position=convert_position, allow_orphans=allow_orphans, filter=row_filter,
    )  # fmt: skip
    given = verbs_load.Given(
        inputs=tuple(inputs or ()), query=query, lang=lang.value,
        butler={"collections": tuple(collection or ()), "dataset_type": dataset_type, "where": where},
        options={"label": label, "format": input_format, "table": input_table},
        text={"delimiter": delimiter, "nulls": tuple(null_word or ()), "names": tuple(filter(None, names.split(",")))},
    )  # fmt: skip
    verbs_load.load(
        store, request, given, context=verbs_load.context_of(why, context or ()), wait_s=wait, is_resuming=resume, as_json=as_json,
        choice=verbs_load.by(executor, dask),
    )  # fmt: skip


def begin(
    into: CatalogOption,
    store: StoreOption = None,
    loader: LoaderOption = "",
    authority: AuthorityOption = None,
    certificate: CertificateOption = None,
    private_key: PrivateKeyOption = None,
    peer_name: PeerOption = "",
    why: WhyOption = "",
    context: ContextOption = None,
) -> None:
    """Begin a load of a catalogue and print its id; contribute to it, then commit or abort it."""
    from qengine import verbs_load

    verbs_load.begin(
        store,
        verbs_load.at(loader, verbs_load.tls_of(authority, certificate, private_key, peer_name)),
        into,
        context=verbs_load.context_of(why, context or ()),
    )


def contribute(
    load: LoadArgument,
    table: TableOption,
    inputs: InputsArgument = None,
    store: StoreOption = None,
    loader: LoaderOption = "",
    authority: AuthorityOption = None,
    certificate: CertificateOption = None,
    private_key: PrivateKeyOption = None,
    peer_name: PeerOption = "",
    collection: CollectionOption = None,
    dataset_type: TypeOption = "",
    where: WhereOption = "",
    label: LabelOption = "",
    input_format: FormatOption = "",
    input_table: HduOption = "",
    delimiter: DelimiterOption = "",
    null_word: NullOption = None,
    names: NamesOption = "",
    kind: KindOption = None,
    key: KeyOption = None,
    ra: RaOption = "",
    dec: DecOption = "",
    director: DirectorOption = "",
    director_key: DirectorKeyOption = "",
    line: LineOption = None,
    time_key: TimeKeyOption = "",
    left: LeftOption = "",
    right: RightOption = "",
    schema: SchemaOption = "",
    rows_per_tile: RowsOption = None,
    margin_arcsec: MarginOption = None,
    ra_wrap: WrapOption = False,
    on_duplicate: DuplicateOption = Duplicates.ERROR,
    extra_columns: ExtraOption = Extra.ERROR,
    missing_columns: MissingOption = Missing.ERROR,
    evolve: EvolveOption = False,
    convert_position: ConvertOption = False,
    allow_orphans: OrphansOption = False,
    row_filter: FilterOption = "",
    copy: Annotated[bool, typer.Option("--copy", help="Send the rows to the loader instead of naming the files.")] = False,
) -> None:
    """Add inputs to a load that has begun; they are read when it is committed."""
    from qengine import verbs_load

    request = verbs_load.request_of(
        catalog="", table=table, kind=kind, key=key, ra=ra, dec=dec, director=director, director_key=director_key,
        line=line.value if line else "", time_key=time_key, left=left, right=right, schema=schema,
        rows_per_tile=rows_per_tile, margin_arcsec=margin_arcsec, ra_wrap=ra_wrap,
        on_duplicate=on_duplicate, extra_columns=extra_columns, missing_columns=missing_columns, evolve=evolve,
        convert_position=convert_position, allow_orphans=allow_orphans, filter=row_filter,
    )  # fmt: skip
    given = verbs_load.Given(
        inputs=tuple(inputs or ()), query="", lang="",
        butler={"collections": tuple(collection or ()), "dataset_type": dataset_type, "where": where},
        options={"label": label, "format": input_format, "table": input_table},
        text={"delimiter": delimiter, "nulls": tuple(null_word or ()), "names": tuple(filter(None, names.split(",")))},
    )  # fmt: skip
    verbs_load.contribute(
        store,
        verbs_load.at(loader, verbs_load.tls_of(authority, certificate, private_key, peer_name)),
        load,
        request,
        given,
        is_copying=copy,
    )


def commit(
    load: LoadArgument,
    store: StoreOption = None,
    loader: LoaderOption = "",
    authority: AuthorityOption = None,
    certificate: CertificateOption = None,
    private_key: PrivateKeyOption = None,
    peer_name: PeerOption = "",
    wait: WaitOption = 0.0,
    executor: ExecutorOption = Workers.THREADS,
    dask: DaskOption = "",
    as_json: JsonOption = False,
) -> None:
    """Publish what was contributed to a load, all tables at once. Say it again if it was interrupted."""
    from qengine import verbs_load

    remote = verbs_load.at(loader, verbs_load.tls_of(authority, certificate, private_key, peer_name))
    verbs_load.commit(store, remote, load, wait_s=wait, as_json=as_json, choice=verbs_load.by(executor, dask))


def abort(
    load: LoadArgument,
    store: StoreOption = None,
    loader: LoaderOption = "",
    why: WhyOption = "",
    authority: AuthorityOption = None,
    certificate: CertificateOption = None,
    private_key: PrivateKeyOption = None,
    peer_name: PeerOption = "",
) -> None:
    """End a load without publishing, and remove what it has made."""
    from qengine import verbs_load

    verbs_load.abort(store, verbs_load.at(loader, verbs_load.tls_of(authority, certificate, private_key, peer_name)), load, why=why)


def loads(
    load: Annotated[str | None, typer.Argument(metavar="LOAD", help="A load, to show all about it.", show_default=False)] = None,
    store: StoreOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List loads with state and counts, or show context, inputs and contributions of one."""
    from qengine import verbs_load

    verbs_load.loads(store, load, as_json=as_json)


def compact(
    catalog: Annotated[str, typer.Argument(help="A catalogue.", show_default=False)],
    tables: Annotated[list[str] | None, typer.Argument(help="Tables; all if none is named.", show_default=False)] = None,
    store: StoreOption = None,
    why: WhyOption = "",
    wait: WaitOption = 0.0,
    executor: ExecutorOption = Workers.THREADS,
    dask: DaskOption = "",
    as_json: JsonOption = False,
) -> None:
    """Write ranges that have many or small parts anew, and publish them; rows stay as they are."""
    from qengine import verbs_load

    context = verbs_load.context_of(why, ())
    choice = verbs_load.by(executor, dask)
    verbs_load.compact(store, catalog, tuple(tables or ()), as_json=as_json, choice=choice, context=context, wait_s=wait)


def refresh(
    catalog: Annotated[str, typer.Argument(help="A catalogue.", show_default=False)],
    tables: Annotated[list[str] | None, typer.Argument(help="Match tables; all if none is named.", show_default=False)] = None,
    allow_orphans: OrphansOption = False,
    store: StoreOption = None,
    why: WhyOption = "",
    wait: WaitOption = 0.0,
    as_json: JsonOption = False,
) -> None:
    """Place the pairs of match tables anew whose directors in other catalogues have changed, so that joins with them are quick."""
    from qengine import verbs_load

    terms = {"context": verbs_load.context_of(why, ()), "wait_s": wait, "allow_orphans": allow_orphans}
    verbs_load.refresh(store, catalog, tuple(tables or ()), as_json=as_json, **terms)


def sweep(store: StoreOption = None) -> None:
    """Finish loads that died after they had published, and remove what dead loads have left."""
    from qengine import verbs_load

    verbs_load.sweep(store)


def loader(
    store: StoreOption = None,
    listen: Annotated[str, typer.Option(help="host:port to listen on; port 0 takes a free one.")] = "127.0.0.1:8091",
    authority: AuthorityOption = None,
    certificate: CertificateOption = None,
    private_key: PrivateKeyOption = None,
) -> None:
    """Serve begin, contribute, commit and abort to other machines until Ctrl-C."""
    from qengine import verbs_load

    verbs_load.serve(store, listen, tls=verbs_load.tls_of(authority, certificate, private_key))
