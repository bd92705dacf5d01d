"""The surface: streams and publishes as the front door and the Tornado handlers call them, with every refusal turned
into an answer.

Owns that nothing but a Response, a Subscription or None comes out, whatever came in: an unexpected error is a logged
500 without details.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any

from handlers.answers import Refused, bad, json_response, refusal_response
from handlers.publish import Publisher
from handlers.rooms import CHANNEL_PATH, MERCURE_PATH, Rooms
from handlers.subscribe import Subscriber
from server.channel import Start
from server.endings import UNAVAILABLE
from server.exchange import Request, Response
from server.logs import get_logger
from server.opening import Opener, Subscription
from server.relay.protocol import RelayUnavailable

log = get_logger("surface")


class StreamSurface:
    """Implements `server.door.Surface`."""

    def __init__(self, rooms: Rooms, subscriber: Subscriber, publisher: Publisher) -> None:
        self._rooms = rooms
        self._subscriber = subscriber
        self._publisher = publisher
        self._tasks: set[asyncio.Task[None]] = set()

    def keep(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work`, which deals with its own errors, to its end."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @staticmethod
    def is_stream(path: str) -> bool:
        """True if a GET of this path is a stream."""
        return path == MERCURE_PATH or CHANNEL_PATH.fullmatch(path) is not None

    is_publish = is_stream

    def subscribe(self, request: Request) -> Subscription | Response | None:
        """Admit or refuse; None if the channel has first to be opened."""
        try:
            return self._subscriber.subscribe(request)
        except Exception as error:
            return self._answer(error, request, stream=True)

    async def subscribe_later(self, request: Request) -> Subscription | Response:
        """As `subscribe`, opening the channel if need be."""
        try:
            return await self._subscriber.subscribe_later(request)
        except Exception as error:
            return self._answer(error, request, stream=True)

    def publish(self, request: Request) -> Response | Awaitable[Response]:
        """Answer a publish."""
        try:
            answer = self._publisher.publish(request)
        except Exception as error:
            return self._answer(error, request, stream=False)
        return self._finish(answer, request) if isinstance(answer, Response) else self._publish_later(answer, request)

    async def _publish_later(self, answer: Awaitable[Response], request: Request) -> Response:
        try:
            return self._finish(await answer, request)
        except Exception as error:
            return self._answer(error, request, stream=False)

    async def find(self, opener: Opener, wanted: Subscription, request: Request) -> Start | Response:
        """Where the stream starts, by asking the relay, or the refusal."""
        try:
            return await opener.find(wanted)
        except Exception as error:
            return self._answer(error, request, stream=True)

    def check_origin(self, request: Request) -> None:
        """Raise Refused for an origin that is not allowed."""
        self._rooms.origins.check(request)

    def cors(self, request: Request) -> list[tuple[str, str]]:
        """The CORS headers of any answer."""
        return self._rooms.origins.headers(request)

    @property
    def max_body_bytes(self) -> int:
        """The most that a publish may hold."""
        return self._publisher.max_body_bytes

    def too_large(self, request: Request) -> Response:
        """The answer to a body over the limit; a bad token comes first."""
        try:
            self._publisher.authenticate(request)
            raise bad("", f"the body is larger than {self.max_body_bytes} bytes", too_large=True)
        except Refused as refused:
            return self._answer(refused, request, stream=False)

    def refuse(self, refused: Refused, request: Request) -> Response:
        """The answer to a request that a handler refuses."""
        return self._answer(refused, request, stream=False)

    def _answer(self, error: Exception, request: Request, *, stream: bool) -> Response:
        if isinstance(error, RelayUnavailable):
            error = Refused(UNAVAILABLE, reason=error.reason)
        if isinstance(error, Refused):
            return self._finish(refusal_response(error, request, stream=stream), request)
        log.error("handler_failed", path=request.path, exc_info=error)
        return self._finish(json_response({"code": "internal", "reason": "an error of the server"}, 500), request)

    def _finish(self, response: Response, request: Request) -> Response:
        response.headers += self._rooms.origins.headers(request)
        return response
