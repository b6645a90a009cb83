"""Inputs in object stores and on web servers: an S3 server (moto) and an HTTP server on this machine."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import boto3
import pyarrow as pa
import pytest
from moto.server import ThreadedMotoServer

from qengine.errors import InputError
from qengine.loader.load import load
from qengine.loader.request import LoadRequest
from qengine.loader.sources.open import open_sources, reopen
from tests.loader.sources.makers import MAKERS, table
from tests.loader.sources.test_contract import plain
from tests.loader.stores import Site, sky

KEY, SECRET = "test", "test"  # what the test server takes: any words


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """An S3 server with one bucket; the environment leads to it."""
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", KEY)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL", url)
        patch.setenv("AWS_ALLOW_HTTP", "true")
        client = boto3.client("s3", endpoint_url=url)
        client.create_bucket(Bucket="sky")
        yield "sky"
    server.stop()


def upload(bucket: str, key: str, path: Path) -> None:
    boto3.client("s3").upload_file(str(path), bucket, key)


@pytest.mark.parametrize("name", MAKERS)
def test_every_format_is_read_from_an_object_store(bucket: str, tmp_path: Path, name: str) -> None:
    maker = MAKERS[name]
    rows = table(2_000, has_unicode=maker.has_unicode)
    path = maker.write(rows, tmp_path)
    upload(bucket, f"{name}/{path.name}", path)
    uri = f"s3://{bucket}/{name}/{path.name}"
    [source] = open_sources([uri])
    assert (source.name, source.identity.uri, source.identity.label) == (uri, uri, uri)
    assert source.version() == hashlib.sha256(path.read_bytes()).hexdigest()
    for one in (source, reopen(source.recipe)):
        assert plain(pa.Table.from_batches(list(one.batches(one.schema.names)))).equals(plain(rows))


def test_folders_and_patterns_of_an_object_store(bucket: str, tmp_path: Path) -> None:
    path = MAKERS["parquet"].write(table(10), tmp_path)
    for key in ("many/a.parquet", "many/b.parquet", "many/sub/c.parquet", "many/_meta/d.parquet", "many/notes.md"):
        upload(bucket, key, path)
    upload(bucket, "odd/a b%20#1.parquet", path)
    [odd] = open_sources([f"s3://{bucket}/odd/"])
    assert odd.rows == 10
    names = [source.name.removeprefix("s3://sky/many/") for source in open_sources([f"s3://{bucket}/many"])]
    assert names == ["a.parquet", "b.parquet", "sub/c.parquet"]
    assert len(open_sources([f"s3://{bucket}/many/*.parquet"])) == 2
    assert len(open_sources([f"s3://{bucket}/many/", f"s3://{bucket}/many/a.parquet"])) == 3


def test_a_table_is_loaded_from_an_object_store(bucket: str, tmp_path: Path) -> None:
    site = Site(tmp_path)
    columns = sky(500)
    for number, rows in enumerate((pa.table(columns).slice(0, 300), pa.table(columns).slice(300))):
        path = site.write(f"{number}.parquet", rows)
        upload(bucket, f"load/{number}.parquet", path)
        path.unlink()
    request = LoadRequest(inputs=(f"s3://{bucket}/load/",), catalog="demo", table="obj", key="id")
    assert load(request, site.registry, site.store).stored == 509
    assert sorted(site.read(site.snapshot().home)["id"].to_pylist()) == sorted(columns["id"].tolist())
    assert [one.uri for one in site.registry.inputs("demo")] == [f"s3://{bucket}/load/{number}.parquet" for number in range(2)]


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("s3://sky/none.parquet", "no such file"),
        ("s3://nobucket/a.parquet", "nobucket"),
        ("s3://sky/none/*.parquet", "no object matches"),
        ("ftp://sky/a.parquet", "no reader for this scheme"),
        ("s3://me:secret@sky/a.parquet", "must not hold a password"),
        ("https://sky/a.parquet?a=1&X-Amz-Signature=hidden", "a signed address expires"),
    ],
)
def test_addresses_that_lead_nowhere(bucket: str, uri: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        open_sources([uri])
    assert "me:secret" not in str(error.value)
    assert "hidden" not in str(error.value)


def test_an_object_that_was_cut(bucket: str, tmp_path: Path) -> None:
    path = MAKERS["parquet"].write(table(1_000), tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    upload(bucket, "cut.parquet", path)
    with pytest.raises(InputError, match=r"s3://sky/cut\.parquet: not a readable Parquet file"):
        open_sources([f"s3://{bucket}/cut.parquet"])


class _Quiet(SimpleHTTPRequestHandler):
    """Serves a folder with ranges, which the standard handler does not know."""

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        asked = self.headers.get("Range")
        first, last = 0, len(content) - 1
        if asked:
            begin, end = asked.removeprefix("bytes=").split("-")
            first, last = int(begin), min(int(end or last), last)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(last - first + 1))
        self.send_header("Last-Modified", self.date_time_string(path.stat().st_mtime))
        self.end_headers()
        self.wfile.write(content[first : last + 1])


def test_files_of_a_web_server(tmp_path: Path) -> None:
    path = MAKERS["parquet"].write(table(1_000), tmp_path)
    server = HTTPServer(("127.0.0.1", 0), lambda *words: _Quiet(*words, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        [source] = open_sources([f"{url}/{path.name}"])
        assert plain(pa.Table.from_batches(list(source.batches(source.schema.names)))).equals(plain(table(1_000)))
        assert source.version() == hashlib.sha256(path.read_bytes()).hexdigest()
        with pytest.raises(InputError, match="no such file"):
            open_sources([f"{url}/none.parquet"])
        with pytest.raises(InputError, match="a web server has no list"):
            open_sources([f"{url}/"])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
