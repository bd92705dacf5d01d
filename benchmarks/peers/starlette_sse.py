"""Event streams with sse-starlette on uvicorn: one queue and one generator for each client; the library sends the
pings.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from benchmarks.peers.accounts import arguments, is_allowed

options = arguments()
queues_by_topic: defaultdict[str, set[asyncio.Queue[str]]] = defaultdict(set)


async def subscription(topics: list[str]) -> AsyncIterator[dict[str, Any]]:
    """The events of one client."""
    queue: asyncio.Queue[str] = asyncio.Queue()
    for topic in topics:
        queues_by_topic[topic].add(queue)
    try:
        while True:
            yield {"data": await queue.get()}
    finally:
        for topic in topics:
            queues_by_topic[topic].discard(queue)


async def events(request: Request) -> Response:
    """GET /events?topic=…: the stream."""
    if not is_allowed(request.headers.get("authorization", ""), options.jwt_secret):
        return Response(status_code=401)
    return EventSourceResponse(subscription(request.query_params.getlist("topic")), ping=int(options.heartbeat_seconds))


async def publish(request: Request) -> Response:
    """POST /publish with `topic` and `data` as a form."""
    form = await request.form()
    for queue in queues_by_topic[str(form["topic"])]:
        queue.put_nowait(str(form["data"]))
    return Response()


app = Starlette(routes=[Route("/events", events), Route("/publish", publish, methods=["POST"])])

if __name__ == "__main__":
    uvicorn.run(
        app, host="127.0.0.1", port=options.port, loop="uvloop", http="httptools", log_level="warning", access_log=False
    )
