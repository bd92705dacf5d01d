"""Event streams in plain Tornado: one queue and one coroutine for each client, a comment to all every `--heartbeat-
seconds`.

It runs on uvloop, as the server beside it does, so that the difference is not the event loop.
"""

from __future__ import annotations

import argparse
import asyncio
from collections import defaultdict

import uvloop
from tornado.iostream import StreamClosedError
from tornado.web import Application, HTTPError, RequestHandler

from benchmarks.peers.accounts import arguments, is_allowed

Queue = asyncio.Queue[str | None]
queues_by_topic: defaultdict[str, set[Queue]] = defaultdict(set)


class Events(RequestHandler):
    """GET /events?topic=…: the stream."""

    def initialize(self, secret: str) -> None:
        self.secret = secret
        self.queue: Queue = asyncio.Queue()

    async def get(self) -> None:
        if not is_allowed(self.request.headers.get("Authorization", ""), self.secret):
            raise HTTPError(401)
        self.set_header("Content-Type", "text/event-stream")
        self.set_header("Cache-Control", "no-store")
        queues = [queues_by_topic[topic] for topic in self.get_arguments("topic")]
        for registered in queues:
            registered.add(self.queue)
        try:
            await self.send_events()
        finally:
            for registered in queues:
                registered.discard(self.queue)

    async def send_events(self) -> None:
        """Until the client is gone."""
        try:
            await self.flush()
            while (event := await self.queue.get()) is not None:
                self.write(event)
                await self.flush()
        except StreamClosedError:
            pass

    def on_connection_close(self) -> None:
        self.queue.put_nowait(None)


class Publish(RequestHandler):
    """POST /publish with `topic` and `data` as a form."""

    def post(self) -> None:
        event = f"data: {self.get_body_argument('data', strip=False)}\n\n"
        for queue in queues_by_topic[self.get_body_argument("topic")]:
            queue.put_nowait(event)


async def keep_alive(seconds: float) -> None:
    """A comment to everybody, so that nobody in between takes the silence for death."""
    while True:
        await asyncio.sleep(seconds)
        for queue in set().union(*queues_by_topic.values()):
            queue.put_nowait(":\n\n")


async def serve(options: argparse.Namespace) -> None:
    """Until the process is stopped."""
    application = Application(
        [("/events", Events, {"secret": options.jwt_secret}), ("/publish", Publish)], log_function=lambda _: None
    )
    application.listen(options.port, "127.0.0.1")
    await keep_alive(options.heartbeat_seconds)


if __name__ == "__main__":
    uvloop.run(serve(arguments()))
