"""A connection to NATS: made once, watched, and given up as soon as it does not answer.

Owns addresses, credentials and certificates, and what an error means to an operator (never with an address or a
secret). Must never know what is read. A lost connection is not mended behind our back: whoever uses it begins again
with the next (bridges/bridge.py), so that what has to be looked at again is looked at again.

Invariant: a server that does not answer is noticed within `PING_SECONDS` times three, whatever else the library does.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Any, NamedTuple

from nats.aio.client import Client
from nats.errors import Error, SlowConsumerError
from pydantic import SecretStr

from bridges.bridge import SourceLost
from config.settings import Settings

CONNECT_SECONDS = 4.0
ANSWER_SECONDS = 2.0
PING_SECONDS = 2.0
CLOSE_SECONDS = 2.0

ERRORS = (Error, OSError, TimeoutError)


class NatsTarget(NamedTuple):
    """Which NATS, and as whom. A server's address may hold a user and a password, or a token."""

    servers: tuple[str, ...]
    credentials: str | None = None
    ca_file: str | None = None
    certificate_file: str | None = None

    @classmethod
    def of(cls, settings: Settings, url: SecretStr | None = None) -> NatsTarget:
        """As the settings say, or at another address with the same files."""
        where = url or settings.nats_url
        assert where is not None
        servers = tuple(server.strip() for server in where.get_secret_value().split(","))
        return cls(servers, settings.nats_credentials, settings.nats_ca_file, settings.nats_certificate_file)

    def options(self) -> dict[str, Any]:
        """For the library. Raises SourceLost if a file cannot be read."""
        options: dict[str, Any] = {"servers": list(self.servers)}
        if self.credentials is not None:
            options["user_credentials"] = self.credentials
        try:
            if self.ca_file is not None or self.certificate_file is not None:
                options["tls"] = ssl.create_default_context(cafile=self.ca_file)
            if self.certificate_file is not None:
                options["tls"].load_cert_chain(self.certificate_file)
        except OSError as error:  # also what ssl says
            raise SourceLost("a certificate file for NATS cannot be read") from error
        return options


class NatsConnection:
    """A connection that is up. `lost` is set when it is not any more; `reason` then says why."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.lost = asyncio.Event()
        self.reason = "the connection to NATS broke"
        self.slow = 0

    async def on_error(self, error: Exception) -> None:
        """What the library says while it goes on."""
        if isinstance(error, SlowConsumerError):
            self.slow += 1
        elif "permissions violation" in str(error).lower():
            self.fail("NATS does not permit what the bridge asks for")

    def fail(self, reason: str) -> None:
        """It is of no use any more."""
        if not self.lost.is_set():
            self.reason = reason
            self.lost.set()

    async def on_closed(self) -> None:
        """The library has given it up."""
        self.fail(self.reason)

    async def settle(self) -> None:
        """Return when the server has done all that it was told. Raises SourceLost."""
        try:
            await self.client.flush(round(ANSWER_SECONDS))
        except ERRORS as error:
            raise SourceLost(reason_of(error)) from error
        self.check()

    def check(self) -> None:
        """Raises SourceLost if the connection is lost."""
        if self.lost.is_set():
            raise SourceLost(self.reason)

    async def close(self) -> None:
        """Let go of it, in any state."""
        with contextlib.suppress(*ERRORS):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self.client.close()


async def connect(target: NatsTarget, name: str) -> NatsConnection:
    """A connection. `name` is what the server's monitoring shows. Raises SourceLost."""
    connection = NatsConnection(Client())
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await connection.client.connect(
                name=name,
                error_cb=connection.on_error,
                closed_cb=connection.on_closed,
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                connect_timeout=round(ANSWER_SECONDS),
                ping_interval=round(PING_SECONDS),
                **target.options(),
            )
    except BaseException as error:
        await connection.close()
        if isinstance(error, (*ERRORS, ValueError, ImportError)):
            raise SourceLost(reason_of(error)) from error
        raise
    return connection


def reason_of(error: BaseException) -> str:
    """What to tell an operator."""
    text = str(error).lower()
    if "authorization" in text or "authentication" in text:
        return "NATS refuses the credentials"
    if isinstance(error, ssl.SSLError) or "tls" in text:
        return "the TLS handshake with NATS failed"
    if isinstance(error, ImportError):
        return "credentials files of NATS need the package nkeys"
    if isinstance(error, (FileNotFoundError, PermissionError, ValueError)):
        return "the credentials for NATS cannot be used"
    return "NATS does not answer"
