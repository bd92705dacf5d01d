"""A connection to Google Pub/Sub for pulling.

Owns addresses and credentials, the calls that a puller makes, and what an error means to an operator (never with an
address or a secret). Must never know what is pulled. It needs google-cloud-pubsub, which is optional: nothing imports
this module unless a bridge pulls.

Why unary calls of the library's asyncio client, and not its subscriber: that one (StreamingPull) gives messages to
callbacks in threads of a pool, and has threads more that extend leases and send acknowledgements in batches of their
own. Each message would cross between threads twice, each would be out of the hands of whoever knows what is in the log
and in which order, and a stream that fell silent would not be seen. Here a puller asks for as many as it has room for,
and nothing happens behind its back: no call is tried again by the library. grpc's asyncio part runs on the one loop
there is; with several loops in a process it is noisy (grpc/grpc#25364).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import google.auth
import grpc.aio
from google.api_core.exceptions import (
    DeadlineExceeded,
    FailedPrecondition,
    Forbidden,
    GoogleAPICallError,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unauthenticated,
)
from google.auth.exceptions import GoogleAuthError
from google.oauth2 import service_account
from google.pubsub_v1.services.subscriber import SubscriberAsyncClient
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcAsyncIOTransport
from google.pubsub_v1.types import PullResponse

from bridges.bridge import SourceLost

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 5.0
CLOSE_SECONDS = 2.0

_SCOPES = ("https://www.googleapis.com/auth/pubsub",)
_OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.keepalive_time_ms", 30_000))
_ERRORS = (GoogleAPICallError, GoogleAuthError, grpc.aio.AioRpcError, OSError, TimeoutError)


class SubscriptionRefused(SourceLost):
    """Pub/Sub answers, and does not give this subscription."""


class PubSubTarget(NamedTuple):
    """Which Pub/Sub, and as whom: `credentials` is a key file's path. Over plain HTTP it is an emulator, and nobody is
    asked who they are."""

    url: str
    credentials: str | None = None


class PubSubConnection:
    """Calls to Pub/Sub. Each raises SourceLost, or SubscriptionRefused if only the subscription is wrong."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def pull(self, subscription: str, most: int, seconds: float) -> Sequence[Any]:
        """Up to `most` messages, as soon as there are any; none if there are none for so long."""
        request = {"subscription": subscription, "max_messages": most}
        try:
            answer = await self._client.pull(request=request, retry=None, timeout=seconds)
        except DeadlineExceeded:
            return ()
        except _ERRORS as error:
            raise _lost(error) from error
        # Not the wrapped messages, which cost more than all the rest.
        found: Sequence[Any] = PullResponse.pb(answer).received_messages
        return found

    async def acknowledge(self, subscription: str, ack_ids: Sequence[str]) -> None:
        """These are in the log."""
        await self._tell(self._client.acknowledge, subscription, ack_ids)

    async def extend(self, subscription: str, ack_ids: Sequence[str], seconds: int) -> None:
        """These are held for so many seconds more."""
        await self._tell(self._client.modify_ack_deadline, subscription, ack_ids, ack_deadline_seconds=seconds)

    async def give_back(self, subscription: str, ack_ids: Sequence[str]) -> None:
        """These are to come again."""
        await self.extend(subscription, ack_ids, 0)

    async def _tell(self, call: Any, subscription: str, ack_ids: Sequence[str], **more: object) -> None:
        if not ack_ids:
            return
        request = {"subscription": subscription, "ack_ids": list(ack_ids), **more}
        try:
            await call(request=request, retry=None, timeout=ANSWER_SECONDS)
        except _ERRORS as error:
            raise _lost(error) from error

    async def close(self) -> None:
        """Let go of it, in any state."""
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._client.transport.close()
        except _ERRORS:
            pass


async def connect(target: PubSubTarget) -> PubSubConnection:
    """A connection that is up. Raises SourceLost."""
    parts = urlsplit(target.url)
    try:
        if parts.scheme == "http":
            channel = grpc.aio.insecure_channel(parts.netloc, options=_OPTIONS)
            transport = SubscriberGrpcAsyncIOTransport(channel=channel)
        else:
            credentials = await asyncio.to_thread(_credentials, target.credentials)
            transport = SubscriberGrpcAsyncIOTransport(
                host=parts.netloc, credentials=credentials, always_use_jwt_access=True
            )
    except (GoogleAuthError, OSError, ValueError) as error:
        raise SourceLost("the credentials for Pub/Sub cannot be used") from error
    connection = PubSubConnection(SubscriberAsyncClient(transport=transport))
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await _ready(transport.grpc_channel)
    except BaseException as error:
        await connection.close()
        if isinstance(error, _ERRORS):
            raise _lost(error) from error
        raise
    return connection


async def _ready(channel: grpc.aio.Channel) -> None:
    """Return when it is up. Raises SourceLost as soon as a try has failed: the library would wait and try again."""
    state = channel.get_state(try_to_connect=True)
    while state is not grpc.ChannelConnectivity.READY:
        if state in (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN):
            raise SourceLost("Pub/Sub does not answer")
        await channel.wait_for_state_change(state)
        state = channel.get_state(try_to_connect=True)


def _credentials(path: str | None) -> Any:
    """From a file, or from the environment, which may ask the machine's metadata server. Raises GoogleAuthError,
    OSError, ValueError."""
    if path is not None:
        return service_account.Credentials.from_service_account_file(path, scopes=_SCOPES)
    credentials, _ = google.auth.default(scopes=_SCOPES)
    return credentials


def _lost(error: BaseException) -> SourceLost:
    """What to tell an operator."""
    if isinstance(error, NotFound):
        return SubscriptionRefused("there is no such subscription")
    if isinstance(error, Forbidden):
        return SubscriptionRefused("Pub/Sub does not permit what the bridge asks for")
    if isinstance(error, (FailedPrecondition, InvalidArgument)):
        return SubscriptionRefused("Pub/Sub refuses what the bridge asks for")
    if isinstance(error, (Unauthenticated, GoogleAuthError)):
        return SourceLost("Pub/Sub refuses the credentials")
    if isinstance(error, ResourceExhausted):
        return SourceLost("the project's quota for Pub/Sub is used up")
    return SourceLost("Pub/Sub does not answer")
