"""Tables at addresses, fetched for strangers.

Whoever can make the service read an address must not reach through it what only the service can reach. So

1. an address is http or https, without a name and password in it;
2. its host is resolved here, once, and what comes of it must be globally routable, or in a network that the operators have named;
   an IPv4 address inside an IPv6 one (mapped, 6to4, NAT64) is judged for itself;
3. the connection goes to the very address that was judged, so that a name which means something else a moment later wins nothing;
   the certificate is still checked against the name;
4. redirections, a few, begin at 1 again, and do not lead from https to http;
5. size and time are bounded, the time of all together too: what trickles ends.

Nothing of the request that asks for it is sent on. Errors name the host that the user has named, never an address behind it, nor
anything of what was answered; a name that is not known and one that is not public cannot be told apart by them.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO
from urllib.parse import quote, urljoin, urlsplit

import httpcore

from qengine.errors import ConfigError, UploadError
from qengine.tap.upload_scan import UploadLimits, too_large

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str, int], Sequence[str]]
"""Host and port -> addresses. Called in a thread."""

_PORTS = {"http": 80, "https": 443}
_ADDRESS_LETTERS = 4096
_PLAIN = "/%:@!$&'()*+,;=~-._?"
_REDIRECTIONS = 5
_MOVED = (301, 302, 303, 307, 308)
_PIECE = 1 << 20
_LOOKUPS = 8
"""Threads of their own: a name server may take its time, and what else runs in threads must not wait for that."""

_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_PAGES = ("text/html", "application/xhtml+xml")


class Fetcher:
    """Fetches tables from where `limits` let it."""

    def __init__(self, limits: UploadLimits, *, resolve: Resolve | None = None, tls: ssl.SSLContext | None = None) -> None:
        self._limits = limits
        self._networks = networks(limits.networks)
        self._resolve = resolve or _resolved
        self._tls = tls
        self._lookups = ThreadPoolExecutor(_LOOKUPS, thread_name_prefix="upload-lookup")

    async def fetch(self, address: str, name: str, target: Path, *, size: int | None = None) -> None:
        """Write what is at `address`, which the user wants as table `name`, to `target`: at most `size` bytes, if that is less than
        the limit. Raise `UploadError`."""
        limits = self._limits if size is None else replace(self._limits, bytes=min(size, self._limits.bytes))
        place = Place.parse(address, name)
        asked = place.host
        try:
            async with asyncio.timeout(self._limits.fetch_s):
                for _ in range(_REDIRECTIONS + 1):
                    moved = await self._get(place, name, target, limits)
                    if not moved:
                        return
                    place = _next(place, moved, name)
        except TimeoutError:
            raise UploadError(
                f"upload {name}: {asked} did not send it within {self._limits.fetch_s:g} s", hint="send the table inline"
            ) from None
        except httpcore.TimeoutException:
            raise UploadError(f"upload {name}: {asked} does not answer", hint="is the address right?") from None
        except httpcore.ConnectError as error:
            raise _not_connected(name, asked, error) from None
        except (httpcore.NetworkError, httpcore.ProtocolError):
            raise UploadError(f"upload {name}: {asked} broke off", hint="try again, or send the table inline") from None
        raise UploadError(f"upload {name}: {asked} redirects more than {_REDIRECTIONS} times", hint="give the last address")

    async def _get(self, place: Place, name: str, target: Path, limits: UploadLimits) -> str:
        """Fetch from one place. Return where to look instead, or nothing."""
        seconds = limits.idle_s
        timeouts = {"timeout": {"connect": seconds, "read": seconds, "write": seconds, "pool": seconds}}
        headers = [
            (b"Host", place.shown.encode()), (b"User-Agent", b"qengine"), (b"Accept", b"*/*"), (b"Accept-Encoding", b"identity"),
        ]  # fmt: skip
        guard = _Guard(self._addresses, name)
        url = httpcore.URL(scheme=place.scheme.encode(), host=place.host.encode(), port=place.port, target=place.target)
        async with (
            httpcore.AsyncConnectionPool(ssl_context=self._tls, network_backend=guard) as pool,
            pool.stream("GET", url, headers=headers, extensions=timeouts) as response,
        ):
            said = {key.lower(): value.decode("latin-1") for key, value in response.headers}
            if response.status in _MOVED and said.get(b"location"):
                return said[b"location"]
            if response.status != 200:
                raise UploadError(
                    f"upload {name}: {place.host} answers with HTTP status {response.status}", hint="is it the address?"
                )
            _check_kind(said, name, place)
            if (length := said.get(b"content-length", "0")).isdigit() and int(length) > limits.bytes:
                raise too_large(name, limits)
            with target.open("wb") as file:
                await _copy(response.aiter_stream(), file, name, limits)
        return ""

    async def _addresses(self, host: str, port: int) -> list[str]:
        """Return the addresses of a host that may be connected to."""
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(self._lookups, self._resolve, host, port)
        except (OSError, UnicodeError):
            return []
        return [each for each in found if is_allowed(each, self._networks)]


async def _copy(pieces: AsyncIterable[bytes], file: IO[bytes], name: str, limits: UploadLimits) -> None:
    held: list[bytes] = []
    size = written = 0
    async for piece in pieces:
        written += len(piece)
        if written > limits.bytes:
            raise too_large(name, limits)
        held.append(piece)
        size += len(piece)
        if size >= _PIECE:
            await asyncio.to_thread(file.write, b"".join(held))
            held, size = [], 0
    await asyncio.to_thread(file.write, b"".join(held))


class _Guard(httpcore.AsyncNetworkBackend):
    """Connects to addresses that were judged, and to nothing else."""

    def __init__(self, addresses: Callable[[str, int], Awaitable[list[str]]], name: str) -> None:
        self._addresses = addresses
        self._name = name
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        found = await self._addresses(host, port)
        if not found:
            raise UploadError(
                f"upload {self._name}: no public address is known of {host}",
                hint="tables are read from public addresses only; send it inline",
            )
        for each in found[:-1]:
            try:
                return await self._inner.connect_tcp(each, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._inner.connect_tcp(found[-1], port, timeout, local_address, socket_options)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """An address in parts. `shown` is host and port as HTTP wants them, `target` what comes after."""

    scheme: str
    host: str
    port: int
    shown: str
    target: bytes
    address: str

    @classmethod
    def parse(cls, address: str, name: str) -> Place:
        """Read an address. Raise `UploadError` that names the upload `name`."""
        wrong = UploadError(f"upload {name}: {address[:80]!r} is no address that can be read", hint="give http://host/path")
        if len(address) > _ADDRESS_LETTERS or any(letter.isspace() or not letter.isprintable() for letter in address):
            raise wrong
        try:
            parts = urlsplit(address)
            scheme, port = parts.scheme.lower(), parts.port
            host = (parts.hostname or "").encode("idna").decode() if ":" not in (parts.hostname or "") else parts.hostname or ""
        except ValueError:  # also of what IDNA cannot say
            raise wrong from None
        if scheme not in _PORTS or not host:
            raise wrong
        if "@" in parts.netloc:
            raise UploadError(f"upload {name}: there is a name or password in its address", hint="leave it out, or send it inline")
        bracketed = f"[{host}]" if ":" in host else host
        shown = bracketed if port in (None, _PORTS[scheme]) else f"{bracketed}:{port}"
        target = (quote(parts.path, safe=_PLAIN) or "/") + ("?" + quote(parts.query, safe=_PLAIN) if parts.query else "")
        whole = f"{scheme}://{shown}{target}"
        port = _PORTS[scheme] if port is None else port
        return cls(scheme=scheme, host=host, port=port, shown=shown, target=target.encode(), address=whole)


def networks(words: Iterable[str]) -> tuple[IpNetwork, ...]:
    """Return the networks that are written as 10.0.0.0/8. Raise `ConfigError`."""
    try:
        return tuple(ipaddress.ip_network(word) for word in words)
    except ValueError as error:
        raise ConfigError(f"uploads.networks: {error}", hint="write them as 10.1.0.0/16") from error


def is_allowed(address: str, allowed: Sequence[IpNetwork] = ()) -> bool:
    """Return whether strangers may have the service connect to an address: it is globally routable, or in one of the networks."""
    found: IpAddress = ipaddress.ip_address(address)
    if isinstance(found, ipaddress.IPv6Address) and (inner := _inner(found)) is not None:
        found = inner
    if any(found in each for each in allowed):
        return True
    if isinstance(found, ipaddress.IPv4Address):
        return found.is_global and not found.is_multicast and not found.is_reserved
    return found in _GLOBAL_V6 and found.is_global


def _inner(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address that an IPv6 address stands for, if it does."""
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


def _resolved(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(each[4][0]) for each in found))


def _next(place: Place, moved: str, name: str) -> Place:
    try:
        address = urljoin(place.address, moved)
    except ValueError:
        raise UploadError(f"upload {name}: {place.host} redirects to what is no address") from None
    found = Place.parse(address, name)
    if place.scheme == "https" and found.scheme == "http":
        raise UploadError(f"upload {name}: {place.host} redirects from https to http", hint="give the last address")
    return found


def _check_kind(said: dict[bytes, str], name: str, place: Place) -> None:
    kind = said.get(b"content-type", "").partition(";")[0].strip().lower()
    if kind in _PAGES:
        raise UploadError(
            f"upload {name}: at {place.host} is a web page and not a table", hint="give the address of the table itself"
        )
    packing = said.get(b"content-encoding", "identity").strip().lower()
    if packing not in ("", "identity", "gzip", "x-gzip"):  # gzip is found by its first bytes, as in every upload
        raise UploadError(f"upload {name}: {place.host} sends it packed in a way that was not asked for", hint="send it inline")


def _not_connected(name: str, host: str, error: BaseException) -> UploadError:
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLError):
            return UploadError(f"upload {name}: {host} has no certificate that can be trusted", hint="is the address right?")
        seen = seen.__cause__ or seen.__context__
    return UploadError(f"upload {name}: {host} does not answer", hint="is the address right?")
