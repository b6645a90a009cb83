"""Tables at addresses: what may be read is, from real servers, and what must not be is not even connected to."""

from __future__ import annotations

import asyncio
import gzip
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qengine.errors import ConfigError, UploadError
from qengine.tap.upload_fetch import Fetcher, is_allowed, networks
from qengine.tap.upload_scan import UploadLimits

TABLE = b"x,y\n1,2\n"
HERE, THERE = "127.0.0.1", "127.0.0.2"

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class _Server:
    """Answers by the path that is asked for, and keeps what it was asked."""

    answers: dict[str, bytes | Answer] = field(default_factory=dict)
    asked: list[bytes] = field(default_factory=list)
    port: int = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await reader.readuntil(b"\r\n\r\n")
            self.asked.append(request)
            answer = self.answers[request.split()[1].decode()]
            if callable(answer):
                await answer(writer)
            else:
                writer.write(answer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def moved(self, path: str, to: str, status: int = 302) -> None:
        self.answers[path] = f"HTTP/1.1 {status} Moved\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n".encode()


def _ok(body: bytes, *headers: str, length: int | None = None) -> bytes:
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@asynccontextmanager
async def _serving(host: str = HERE, tls: ssl.SSLContext | None = None) -> AsyncIterator[_Server]:
    server = _Server()
    listener = await asyncio.start_server(server.handle, host, 0, ssl=tls)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()


def _limits(*, size: int = 1 << 20, seconds: float = 5.0, idle_s: float = 2.0) -> UploadLimits:
    return UploadLimits(bytes=size, networks=(f"{HERE}/32",), fetch_s=seconds, idle_s=idle_s)


async def _fetched(folder: Path, address: str, limits: UploadLimits | None = None) -> bytes:
    target = folder / "sent"
    await Fetcher(limits or _limits()).fetch(address, "mine", target)
    return target.read_bytes()


def _run(work: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(work(), 20)

    asyncio.run(bounded())


def test_a_table_is_read_and_nothing_is_sent_along(tmp_path: Path) -> None:
    async def work() -> None:
        async with _serving() as server:
            server.answers["/a%20b/t.csv?q=1&r=%C3%A9"] = _ok(TABLE, "Content-Type: text/csv")
            assert await _fetched(tmp_path, f"http://{HERE}:{server.port}/a%20b/t.csv?q=1&r=é#part") == TABLE
            names = {line.split(b":")[0].lower() for line in server.asked[0].split(b"\r\n")[1:] if line}
            assert names == {b"host", b"user-agent", b"accept", b"accept-encoding"}
            assert f"Host: {HERE}:{server.port}".encode() in server.asked[0]

    _run(work)


def test_packed_tables_come_as_they_are(tmp_path: Path) -> None:
    async def work() -> None:
        async with _serving() as server:
            server.answers["/t"] = _ok(gzip.compress(TABLE), "Content-Encoding: gzip")
            assert gzip.decompress(await _fetched(tmp_path, f"http://{HERE}:{server.port}/t")) == TABLE

    _run(work)


def test_redirections_are_followed_and_judged(tmp_path: Path) -> None:
    async def work() -> None:
        async with _serving() as server, _serving(THERE) as secret:
            server.moved("/one", "two?x=1")
            server.moved("/two?x=1", f"http://{HERE}:{server.port}/t", 308)
            server.answers["/t"] = _ok(TABLE)
            assert await _fetched(tmp_path, f"http://{HERE}:{server.port}/one") == TABLE

            secret.answers["/"] = _ok(b"secret")
            for number, to in enumerate(
                (
                    f"http://{THERE}:{secret.port}/",
                    f"//{THERE}:{secret.port}/",
                    f"http://[::ffff:{THERE}]:{secret.port}/",
                    "file:///etc/passwd",
                    "gopher://x/",
                    f"http://a:b@{HERE}:{server.port}/t",
                )
            ):
                server.moved(f"/{number}", to)
                with pytest.raises(UploadError, match="upload mine: ") as caught:
                    await _fetched(tmp_path, f"http://{HERE}:{server.port}/{number}")
                assert "secret" not in str(caught.value)
            assert secret.asked == []

            server.moved("/loop", "/loop")
            with pytest.raises(UploadError, match="redirects more than"):
                await _fetched(tmp_path, f"http://{HERE}:{server.port}/loop")

    _run(work)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.2", "localhost.", "2130706434", "0x7f000002", "127.2", "0.0.0.0", "[::1]", "[::]", "[::ffff:127.0.0.2]",
        "10.0.0.1", "169.254.169.254", "192.168.0.1", "[fd00::1]", "[fe80::1]", "[64:ff9b::7f00:2]", "[2002:7f00:2::]", "no.such.name.invalid",
    ],
)  # fmt: skip
def test_hosts_that_are_not_public_cannot_be_told_from_unknown_ones(tmp_path: Path, host: str) -> None:
    async def work() -> None:
        async with _serving("127.0.0.2") as secret:
            with pytest.raises(UploadError) as caught:
                await _fetched(tmp_path, f"http://{host}:{secret.port}/")
            assert secret.asked == []
            assert caught.value.message == f"upload mine: no public address is known of {host.strip('[]')}"

    _run(work)


def test_a_name_is_looked_up_once_and_what_was_judged_is_connected_to(tmp_path: Path) -> None:
    answers = [[THERE, HERE], [THERE]]

    def resolve(host: str, port: int) -> list[str]:
        assert host == "moving.example"
        return answers.pop(0)

    async def work() -> None:
        async with _serving() as server:
            server.answers["/"] = _ok(TABLE)
            await Fetcher(_limits(), resolve=resolve).fetch(f"http://moving.example:{server.port}", "mine", tmp_path / "t")
            assert (tmp_path / "t").read_bytes() == TABLE
            assert answers == [[THERE]]
            assert b"Host: moving.example:" in server.asked[0]

    _run(work)


def test_sizes_are_bounded_said_or_not(tmp_path: Path) -> None:
    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"1000\r\n" + b"x" * 0x1000 + b"\r\n")
            await writer.drain()

    async def work() -> None:
        async with _serving() as server:
            server.answers["/said"] = _ok(b"", length=1 << 40)
            server.answers["/endless"] = endless
            for path in server.answers:
                with pytest.raises(UploadError, match="more than 100,000 bytes"):
                    await _fetched(tmp_path, f"http://{HERE}:{server.port}{path}", _limits(size=100_000))

    _run(work)


def test_what_trickles_or_stalls_ends(tmp_path: Path) -> None:
    async def trickle(writer: asyncio.StreamWriter) -> None:
        writer.write(_ok(b"", length=1000))
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.05)

    async def stall(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    async def headers(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"X-A: b\r\n")
            await writer.drain()
            await asyncio.sleep(0.05)

    async def work() -> None:
        async with _serving() as server:
            server.answers |= {"/trickle": trickle, "/stall": stall, "/headers": headers}
            for path in ("/trickle", "/headers"):
                with pytest.raises(UploadError, match=r"within 0\.5 s"):
                    await _fetched(tmp_path, f"http://{HERE}:{server.port}{path}", _limits(seconds=0.5))
            with pytest.raises(UploadError, match="does not answer"):
                await _fetched(tmp_path, f"http://{HERE}:{server.port}/stall", _limits(idle_s=0.3))

    _run(work)


def test_answers_that_are_no_table(tmp_path: Path) -> None:
    async def work() -> None:
        async with _serving() as server:
            server.answers |= {
                "/404": b"HTTP/1.1 404 Not Found\r\nContent-Length: 6\r\n\r\nsecret",
                "/html": _ok(b"<html>secret</html>", "Content-Type: text/html; charset=utf-8"),
                "/br": _ok(b"secret", "Content-Encoding: br"),
                "/short": _ok(b"secret", length=100),
                "/none": b"",
                "/garbage": b"secret\r\n\r\n",
            }
            for path, words in {
                "/404": "HTTP status 404", "/html": "web page", "/br": "packed", "/short": "broke off", "/none": "broke off",
                "/garbage": "broke off",
            }.items():  # fmt: skip
                with pytest.raises(UploadError, match=words) as caught:
                    await _fetched(tmp_path, f"http://{HERE}:{server.port}{path}")
                assert "secret" not in str(caught.value)
        with pytest.raises(UploadError, match="does not answer"):
            await _fetched(tmp_path, f"http://{HERE}:{server.port}/")

    _run(work)


@pytest.mark.parametrize(
    "address",
    ["http://", "http:///x", "ftp://x/y", "http://x:99999/", "http://x y/", "http://[::1/", f"http://x/{'a' * 5000}", "http://..com/",
     "http://u:p@127.0.0.1/", "http://u@127.0.0.1/", "http://x/\r\nA: b"],
)  # fmt: skip
def test_addresses_that_are_none(tmp_path: Path, address: str) -> None:
    async def work() -> None:
        with pytest.raises(UploadError, match=r"is no address|name or password"):
            await _fetched(tmp_path, address)

    _run(work)


def test_certificates_are_checked_against_the_name(tmp_path: Path) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=test", "-days", "2", "-addext",
         "subjectAltName=DNS:right.example", "-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "pem")],
        check=True, capture_output=True,
    )  # fmt: skip
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(tmp_path / "pem", tmp_path / "key")
    trusting = ssl.create_default_context(cafile=str(tmp_path / "pem"))

    async def work() -> None:
        async with _serving(tls=serving) as server, _serving() as plain:
            server.answers["/"] = _ok(TABLE)
            server.moved("/down", f"http://{HERE}:{plain.port}/")
            fetcher = Fetcher(_limits(), resolve=lambda host, port: [HERE], tls=trusting)
            await fetcher.fetch(f"https://right.example:{server.port}/", "mine", tmp_path / "t")
            assert (tmp_path / "t").read_bytes() == TABLE
            with pytest.raises(UploadError, match="certificate"):
                await fetcher.fetch(f"https://wrong.example:{server.port}/", "mine", tmp_path / "t")
            with pytest.raises(UploadError, match="certificate"):
                await _fetched(tmp_path, f"https://{HERE}:{server.port}/")
            with pytest.raises(UploadError, match="from https to http"):
                await fetcher.fetch(f"https://right.example:{server.port}/down", "mine", tmp_path / "t")
            assert plain.asked == []

    _run(work)


@given(st.ip_addresses(v=4))
def test_an_address_inside_another_is_judged_for_itself(address: object) -> None:
    number = int(address)  # type: ignore[call-overload]
    texts = [f"::ffff:{address}", f"64:ff9b::{number >> 16:x}:{number & 0xFFFF:x}", f"2002:{number >> 16:x}:{number & 0xFFFF:x}::1"]
    assert {is_allowed(text) for text in texts} == {is_allowed(str(address))}


def test_networks() -> None:
    assert is_allowed("8.8.8.8")
    assert is_allowed("2606:4700:4700::1111")
    for closed in ("224.0.0.1", "240.0.0.1", "100.64.0.1", "::7f00:1", "fec0::1", "ff0e::1", "2001:0:7f00:1::", "255.255.255.255"):
        assert not is_allowed(closed), closed
    assert is_allowed("::ffff:10.1.2.3", networks(["10.1.0.0/16"]))
    assert not is_allowed("10.2.2.3", networks(["10.1.0.0/16", "fd00::/8"]))
    with pytest.raises(ConfigError, match="networks"):
        networks(["10.1.0.0/99"])
