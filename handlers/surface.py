"""The surface: streams and publishes as the front door and the Tornado handlers call them, with every refusal turned
into an answer.

Owns that nothing but a Response, a Subscription or None comes out, whatever came in: an unexpected error is a logged
500 without details. Owns also what is under way when the server stops: publishes that are coming in or being appended,
and streams that wait for the relay (`finish`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Iterable
from typing import Any

from handlers.answers import Refused, json_response, refusal_response
from handlers.endpoints import Endpoint
from handlers.publish import Publisher
from handlers.rooms import CHANNEL_PATH, MERCURE_PATH, Rooms
from handlers.streams import Streams
from handlers.subscribe import Subscriber
from server.channel import Start
from server.endings import DRAINING, OVERLOADED, UNAVAILABLE
from server.exchange import Request, Response
from server.logs import get_logger
from server.opening import Opener, Subscription
from server.relay.protocol import RelayUnavailable

log = get_logger("surface")


class StreamSurface:
    """Implements `server.door.Surface`."""

    def __init__(
        self,
        rooms: Rooms,
        subscriber: Subscriber,
        publisher: Publisher,
        streams: Streams | None = None,
        endpoints: Iterable[Endpoint] = (),
    ) -> None:
        self._rooms = rooms
        self._heads = {(one.method, one.path): one.head for one in endpoints if one.head is not None}
        self._streams = streams or Streams()
        self._subscriber = subscriber
        self._publisher = publisher
        self._tasks: set[asyncio.Task[None]] = set()
        self._publishing: set[object] = set()
        self._all_published = asyncio.Event()
        self._finishing = False
        self.publishes_refused: dict[str, int] = {}

    def keep(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work`, which deals with its own errors, to its end."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def is_stream(self, path: str) -> bool:
        """True if a GET of this path is a stream."""
        return self.is_publish(path) or self._streams.find(path) is not None

    @staticmethod
    def is_publish(path: str) -> bool:
        """True if a POST of this path is a publish."""
        return path == MERCURE_PATH or CHANNEL_PATH.fullmatch(path) is not None

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
            return self._refuse_publish(error, request)
        return (
            self._with_cors(answer, request) if isinstance(answer, Response) else self._publish_later(answer, request)
        )

    async def _publish_later(self, answer: Awaitable[Response], request: Request) -> Response:
        try:
            return self._with_cors(await answer, request)
        except Exception as error:
            return self._refuse_publish(error, request)

    async def find(self, opener: Opener, wanted: Subscription, request: Request) -> Start | Response:
        """Where the stream starts, by asking the relay, or the refusal.

        It holds its place meanwhile, so that a crowd of these does not get past the limits. The place is free again
        when this returns: the stream has to be opened in the same turn of the loop.
        """
        admission = self._rooms.admission
        place = admission.enter(wanted.remote, wanted.subject)
        try:
            start = await opener.find(wanted)
            if admission.draining:
                raise Refused(admission.refusal(wanted.remote, wanted.subject) or DRAINING)
            wanted.selection = self._rooms.check_revoked(wanted.marks, wanted.selection)
            if wanted.look_again is not None:
                wanted.look_again()
            return start
        except Exception as error:
            return self._answer(error, request, stream=True)
        finally:
            admission.leave(*place)

    # --- before the body, and at the end
    # -------------------------------------------------------------------------------------

    def unwelcome(self, request: Request, body_bytes: int) -> Response | None:
        """The refusal of a request other than for a stream, if its head is enough to tell: it names another server, or
        is a publish that comes too late, or by who may not publish, or of so many bytes, or the
        endpoint judges heads."""
        publish = request.method == "POST" and self.is_publish(request.path)
        try:
            if publish and self._finishing:
                raise Refused(DRAINING)
            if publish:
                self._publisher.check_head(request, body_bytes)
            else:
                self._rooms.origins.check_host(request)
                if (judge := self._heads.get((request.method, request.path))) is not None:
                    judge(request)
        except Exception as error:
            return self._refuse_publish(error, request) if publish else self._answer(error, request, stream=False)
        return None

    @property
    def max_body_bytes(self) -> int:
        """The most that a publish may hold."""
        return self._publisher.max_body_bytes

    def overloaded(self, request: Request) -> Response:
        """The answer where there is no room for one more connection."""
        stream = request.method == "GET" and self.is_stream(request.path)
        return self._answer(Refused(OVERLOADED), request, stream=stream)

    def begin(self, publish: object) -> None:
        """A publish has begun to come in."""
        self._publishing.add(publish)

    def end(self, publish: object) -> None:
        """It is answered, or its sender is gone. May be called again."""
        self._publishing.discard(publish)
        if not self._publishing:
            self._all_published.set()

    async def finish(self, seconds: float) -> None:
        """Let no more publishes begin, and wait for those that have and for streams that wait for the relay."""
        self._finishing = True
        try:
            async with asyncio.timeout(seconds):
                while self._publishing:
                    self._all_published.clear()
                    await self._all_published.wait()
                if self._tasks:
                    await asyncio.wait(set(self._tasks))
        except TimeoutError:
            log.warning("requests_cut", publishes=len(self._publishing), streams=len(self._tasks))

    # --- answers
    # -------------------------------------------------------------------------------------------------------------

    def check_origin(self, request: Request) -> None:
        """Raise Refused for an origin that is not allowed."""
        self._rooms.origins.check(request)

    def cors(self, request: Request) -> list[tuple[str, str]]:
        """The CORS headers of any answer."""
        return self._rooms.origins.headers(request)

    async def answered(self, answer: Awaitable[Response], request: Request) -> Response:
        """What a handler answers, or its refusal."""
        try:
            return await answer
        except Exception as error:
            return self._answer(error, request, stream=False)

    def refuse(self, refused: Refused, request: Request) -> Response:
        """The answer to a request that a handler refuses."""
        return self._answer(refused, request, stream=False)

    def _refuse_publish(self, error: Exception, request: Request) -> Response:
        code = error.code if isinstance(error, Refused) else "internal"
        self.publishes_refused[code] = self.publishes_refused.get(code, 0) + 1
        return self._answer(error, request, stream=False)

    def _answer(self, error: Exception, request: Request, *, stream: bool) -> Response:
        if isinstance(error, RelayUnavailable):
            error = Refused(UNAVAILABLE, reason=error.reason)
        if isinstance(error, Refused):
            return self._with_cors(refusal_response(error, request, stream=stream), request)
        log.error("handler_failed", path=request.path, exc_info=error)
        return self._with_cors(json_response({"code": "internal", "reason": "an error of the server"}, 500), request)

    def _with_cors(self, response: Response, request: Request) -> Response:
        response.headers += self._rooms.origins.headers(request)
        return response
