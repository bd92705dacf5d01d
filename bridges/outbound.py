"""Outgoing requests to addresses that strangers name: a monitor's URL, a job's source.

Owns the guard around them (S48): what such a URL may be, where it may lead, and how much is read of what comes back.
Must never know why something is asked for.

How: a URL is read once, by the rules that browsers have (ada), so what was checked is what is used; a name is resolved
once, every address that it has must be permitted, and the connection goes to one of those and to nothing else, with the
name in `Host` and in the handshake. What would connect by the name again could be led elsewhere in between (rebinding).
A redirect is an answer; who wants to follow it does so here, where its target is judged like the first.

Invariants: nothing is sent, no connection tried, before the address is permitted (addresses.py); no credentials,
cookies or proxies; a body is read to `max_body_bytes` and never unpacked; every wait has a limit, and all of them
together one. Errors hold texts of ours, and do not tell a private name from one that is not there.
Cost: a connection, and for a name a thread, per request. A look-up can't be broken off: it has its thread for as long
as the resolver tries, also when nobody waits for it any more, and while all threads are taken no other begins.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import ada_url
import httptools
from cryptography import x509

from bridges.addresses import is_permitted
from bridges.addresses import parsed as parsed_address
from server.event import is_safe

CONNECT_SECONDS = 3.0
TOTAL_SECONDS = 10.0
MAX_BODY_BYTES = 65_536
MAX_HEAD_BYTES = 65_536
MAX_URL_CHARACTERS = 2_000
MAX_HOST_CHARACTERS = 253
MAX_TRIED = 3
RESOLVING_THREADS = 32
PIECE_BYTES = 16_384
PORTS = (80, 443)
USER_AGENT = "Ringcast"
_DEFAULT_PORTS = {"http": 80, "https": 443}
_REDIRECTS = (301, 302, 303, 307, 308)

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Permit = Callable[[str], None]


class OutboundRefused(Exception):
    """The request is not made. `reason` is safe to show to whoever named the address."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class PutOff(OutboundRefused):
    """Not now: there is too much of something. It says nothing of the target."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """What the other side showed: whether it holds for the name and now, until when (unix seconds, None if that can't
    be read), and what is wrong with it."""

    valid: bool
    expires: float | None
    problem: str = ""


class OutboundFailed(Exception):
    """There was no whole answer. `reason` is safe to show; `certificate` is what was seen before that."""

    def __init__(self, reason: str, certificate: Certificate | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.certificate = certificate


@dataclass(frozen=True, slots=True)
class Target:
    """A URL that may be asked for, as far as the URL itself tells. `host` is a name or an address, without brackets."""

    url: str
    secure: bool
    host: str
    port: int
    path: str

    @property
    def host_header(self) -> str:
        """With the port, unless it is the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS["https" if self.secure else "http"] else f"{host}:{self.port}"


@dataclass(slots=True)
class Answer:
    """What came back. `seconds` from the beginning of the request to the end of the answer's head. `body` is what was
    sent, still packed if it was; `truncated` if there was more."""

    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes
    truncated: bool
    seconds: float
    certificate: Certificate | None


class _Unreached(OutboundFailed):
    """There was no connection to an address; another one may do."""


class _Names:
    """Looks names up, each in a thread."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(RESOLVING_THREADS, thread_name_prefix="resolve")
        self._free = threading.BoundedSemaphore(RESOLVING_THREADS)

    async def addresses(self, host: str, port: int) -> Sequence[str]:
        """All addresses of a name, in the system's order. Raises OSError, UnicodeError, PutOff."""
        if not self._free.acquire(blocking=False):
            raise PutOff("too many names are being looked up")
        looking = self._pool.submit(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        looking.add_done_callback(lambda _: self._free.release())
        found = await asyncio.wrap_future(looking)
        return list(dict.fromkeys(str(one[4][0]) for one in found))

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


class Outbound:
    """See the module's head. `resolve` gives all addresses of a name and a port."""

    def __init__(
        self,
        *,
        ports: Sequence[int] = PORTS,
        allow_private: bool = False,
        connect_seconds: float = CONNECT_SECONDS,
        total_seconds: float = TOTAL_SECONDS,
        max_body_bytes: int = MAX_BODY_BYTES,
        resolve: Callable[[str, int], Awaitable[Sequence[str]]] | None = None,
    ) -> None:
        self._ports = frozenset(ports)
        self._allow_private = allow_private
        self._connect_seconds = connect_seconds
        self._total_seconds = total_seconds
        self._max_body_bytes = max_body_bytes
        self._names = _Names()
        self._resolve = resolve or self._names.addresses
        self._verifying = ssl.create_default_context()
        self._looking = ssl.create_default_context()
        self._looking.check_hostname = False
        self._looking.verify_mode = ssl.CERT_NONE

    def close(self) -> None:
        """Wait for no name any more."""
        self._names.close()

    def target(self, url: str) -> Target:
        """The URL, judged by itself: its scheme, what it must not hold, its port, and its host if that is an address.
        Raises OutboundRefused."""
        parsed = _parsed(url)
        secure = parsed.protocol == "https:"
        port = int(parsed.port) if parsed.port else _DEFAULT_PORTS["https" if secure else "http"]
        if port not in self._ports:
            raise OutboundRefused(f"port {port} is none of {', '.join(map(str, sorted(self._ports)))}")
        host = str(parsed.hostname).removeprefix("[").removesuffix("]").rstrip(".")
        if not 1 <= len(host) <= MAX_HOST_CHARACTERS:
            raise OutboundRefused("holds no name that there can be")
        if parsed_address(host) is not None and not is_permitted(host, allow_private=self._allow_private):
            raise OutboundRefused("the address is not a public one")
        whole = _without_fragment(parsed)
        if len(whole) > MAX_URL_CHARACTERS:
            raise OutboundRefused(f"must be at most {MAX_URL_CHARACTERS} characters as it is sent")
        return Target(whole, secure, host, port, f"{parsed.pathname}{parsed.search}")

    async def get(
        self,
        url: str,
        *,
        seconds: float | None = None,
        redirects: int = 0,
        verify: bool = True,
        permit: Permit | None = None,
    ) -> Answer:
        """Ask for a URL, within `seconds` if that is less than the limit. Raises OutboundRefused, OutboundFailed.

        `redirects`: so many are followed; 0: a redirect is an answer. Without `verify` a certificate that does not hold
        is reported and no error. `permit` is asked before each connection to another address, and raises
        OutboundRefused.
        """
        limit = min(seconds or self._total_seconds, self._total_seconds)
        target, began = self.target(url), time.monotonic()
        try:
            async with asyncio.timeout(limit):
                for _ in range(redirects):
                    answer = await self._get(target, began, verify, permit)
                    location = answer.headers.get("location")
                    if answer.status not in _REDIRECTS or location is None:
                        return answer
                    target = self.target(_joined(target.url, location))
                answer = await self._get(target, began, verify, permit)
        except TimeoutError:
            raise OutboundFailed(f"no whole answer within {limit:g} s") from None
        if redirects and answer.status in _REDIRECTS:
            raise OutboundFailed(f"more than {redirects} redirects")
        return answer

    async def _get(self, target: Target, began: float, verify: bool, permit: Permit | None) -> Answer:
        (reader, writer), certificate = await self._open(target, verify, permit)
        reading = _Reading(self._max_body_bytes)
        try:
            writer.write(_request(target))
            await reading.read(reader)
        except OSError:
            raise OutboundFailed("the connection was lost", certificate) from None
        except OutboundFailed as error:
            raise OutboundFailed(error.reason, certificate) from None
        finally:
            writer.transport.abort()
        return Answer(
            target.url,
            reading.status,
            reading.headers,
            bytes(reading.body[: self._max_body_bytes]),
            reading.truncated,
            reading.head_at - began,
            certificate,
        )

    async def _addresses(self, target: Target) -> Sequence[str]:
        """Where the target is: every address is permitted. Raises OutboundRefused."""
        if parsed_address(target.host) is not None:
            return [target.host]
        try:
            found = await self._resolve(target.host, target.port)
        except (OSError, UnicodeError):
            found = []
        if not found or not all(is_permitted(address, allow_private=self._allow_private) for address in found):
            raise OutboundRefused("the name does not lead to a public address")
        return found[:MAX_TRIED]

    async def _open(self, target: Target, verify: bool, permit: Permit | None) -> tuple[Streams, Certificate | None]:
        """A connection to the first address that there is one to, and what the other side showed. Raises
        OutboundRefused, OutboundFailed."""
        last = OutboundFailed("no connection")
        for address in await self._addresses(target):
            if permit is not None:
                permit(address)
            try:
                return await self._open_at(address, target, verify)
            except _Unreached as error:
                last = error
        raise last

    async def _open_at(self, address: str, target: Target, verify: bool) -> tuple[Streams, Certificate | None]:
        if not target.secure:
            return await self._streams(address, target, None), None
        try:
            streams = await self._streams(address, target, self._verifying)
            return streams, Certificate(True, _expiry(streams[1]))
        except ssl.SSLCertVerificationError as error:
            problem = str(error.verify_message)
        # Once more, to see what it is that does not hold.
        streams = await self._streams(address, target, self._looking)
        certificate = Certificate(False, _expiry(streams[1]), problem)
        if verify:
            streams[1].transport.abort()
            raise OutboundFailed(f"the certificate does not hold: {problem}", certificate)
        return streams, certificate

    async def _streams(self, address: str, target: Target, context: ssl.SSLContext | None) -> Streams:
        """Raises OutboundFailed, SSLCertVerificationError."""
        try:
            sock = await self._connected(address, target.port)
        except TimeoutError:
            raise _Unreached(f"no connection within {self._connect_seconds:g} s") from None
        except OSError as error:
            refused = isinstance(error, ConnectionRefusedError)
            raise _Unreached("the connection was refused" if refused else "no connection") from None
        name = target.host if context is not None else None
        try:
            return await asyncio.open_connection(sock=sock, ssl=context, server_hostname=name, limit=PIECE_BYTES)
        except BaseException as error:
            sock.close()
            # ValueError: no certificate can have such a name.
            if isinstance(error, (OSError, ValueError)) and not isinstance(error, ssl.SSLCertVerificationError):
                raise OutboundFailed("TLS failed" if target.secure else "the connection was lost") from None
            raise

    async def _connected(self, address: str, port: int) -> socket.socket:
        """A socket that is connected to this very address. Raises OSError, TimeoutError."""
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            async with asyncio.timeout(self._connect_seconds):
                await asyncio.get_running_loop().sock_connect(sock, (address, port))
        except BaseException:
            sock.close()
            raise
        return sock


@dataclass(slots=True)
class _Reading:
    """An answer as it comes in: what the parser calls."""

    max_body_bytes: int
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    head_at: float = 0.0
    complete: bool = False
    received: int = 0
    _parser: httptools.HttpResponseParser = field(init=False)

    def __post_init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)

    @property
    def truncated(self) -> bool:
        """True if there was more than may be read."""
        return len(self.body) > self.max_body_bytes

    async def read(self, reader: asyncio.StreamReader) -> None:
        """Read until it is whole or enough. Raises OutboundFailed, OSError."""
        while not (self.complete or self.truncated):
            piece = await reader.read(PIECE_BYTES)
            if not piece:
                break
            self._feed(piece)
        if not self.head_at:
            raise OutboundFailed("the connection ended before the answer")

    def _feed(self, piece: bytes) -> None:
        self.received += len(piece)
        try:
            self._parser.feed_data(piece)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if not self.head_at:  # what is wrong behind a head changes nothing of it
                raise OutboundFailed("the answer is not HTTP") from None
            self.complete = True
        # Pieces of a chunked body may be a byte each, with a dozen bytes around it.
        if self.received > MAX_HEAD_BYTES + (16 * self.max_body_bytes if self.head_at else 0):
            if not self.head_at:
                raise OutboundFailed("the answer's head is too long")
            self.complete = True

    def on_message_begin(self) -> None:
        self.headers = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200 or status == 101:  # others say that the answer is still to come
            self.status = status
            self.head_at = time.monotonic()

    def on_body(self, data: bytes) -> None:
        self.body += data[: self.max_body_bytes + 1 - len(self.body)]

    def on_message_complete(self) -> None:
        self.complete = bool(self.head_at)


def _parsed(url: str) -> ada_url.URL:
    if len(url) > MAX_URL_CHARACTERS:
        raise OutboundRefused(f"must be at most {MAX_URL_CHARACTERS} characters")
    if not is_safe(url):
        raise OutboundRefused("must not hold control or format characters")
    try:
        parsed = ada_url.URL(url)
    except ValueError:
        raise OutboundRefused("is not a URL") from None
    if parsed.protocol not in ("http:", "https:"):
        raise OutboundRefused("must begin with http:// or https://")
    if parsed.username or parsed.password:
        raise OutboundRefused("must not hold a user name or password")
    return parsed


def _without_fragment(parsed: ada_url.URL) -> str:
    return str(parsed.href).partition("#")[0]


def _joined(base: str, location: str) -> str:
    """Where a redirect leads. Raises OutboundFailed."""
    try:
        # A header's bytes are UTF-8 where they are not ASCII.
        return str(ada_url.URL(location.encode("latin-1").decode("utf-8", "replace"), base=base).href)
    except ValueError:
        raise OutboundFailed("a redirect to what is no URL") from None


def _request(target: Target) -> bytes:
    lines = (
        f"GET {target.path} HTTP/1.1",
        f"Host: {target.host_header}",
        f"User-Agent: {USER_AGENT}",
        "Accept: */*",
        "Accept-Encoding: identity",
        "Connection: close",
    )
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("ascii")


def _expiry(writer: asyncio.StreamWriter) -> float | None:
    """Until when the shown certificate holds."""
    shown = writer.get_extra_info("ssl_object").getpeercert(True)
    try:
        return x509.load_der_x509_certificate(shown or b"").not_valid_after_utc.timestamp()
    except ValueError:
        return None
