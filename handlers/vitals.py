"""Vitals: /health, /ready, /stats and /metrics.

Owns who may see them. `/health` and `/ready` are for anybody and tell nothing but yes or no; statistics and metrics are
for direct peers on the loopback interface, and for tokens with `ringcast.operate`. To others they do not exist. Must
never name topics, subjects or addresses.
"""

from __future__ import annotations

import time

from config.loopback import is_loopback
from handlers.answers import COMMON_HEADERS, Refused, bad, json_response
from handlers.fields import parse_query
from handlers.rooms import Rooms
from server.cluster import Cluster
from server.endings import NOT_FOUND
from server.exchange import Request, Response
from server.node import Node
from server.statistics import exposition, stats

# Any of these tells of a proxy, which may forward for anybody.
_FORWARDED = (b"x-forwarded-for", b"forwarded", b"x-real-ip", b"x-forwarded-host", b"x-forwarded-proto", b"via")
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Vitals:
    """See the module's head."""

    def __init__(self, node: Node, cluster: Cluster, rooms: Rooms) -> None:
        self._node = node
        self._cluster = cluster
        self._rooms = rooms

    async def answer(self, request: Request) -> Response:
        """The answer to a GET of one of the four paths. Raises Refused, RelayUnavailable."""
        if request.path == "/health":
            return json_response({"status": "ok", "uptime_seconds": round(time.monotonic() - self._node.started, 1)})
        if request.path == "/ready":
            return self._ready()
        self._check_operator(request)
        self._rooms.origins.check(request)
        if request.path == "/stats":
            scope = next((value for name, value in parse_query(request.query) if name == "scope"), b"node")
            if scope not in (b"node", b"cluster"):
                raise bad("scope", "must be node or cluster")
            return json_response(await self._cluster.stats() if scope == b"cluster" else stats(self._node))
        return Response(200, exposition(self._node), METRICS_TYPE, list(COMMON_HEADERS))

    def _ready(self) -> Response:
        node = self._node
        state = node.relay.state()
        relay = "ok" if state["ok"] else str(state.get("reason", "does not take appends"))
        # A bridge that is away takes no node out of service: readers are served as ever. So it is said, and no more.
        others = {name: state() for name, state in node.checks.items()}
        checks = {"relay": relay, "accepting": node.accepting(), "draining": node.draining} | others
        response = json_response({"ready": node.ready, "checks": checks}, 200 if node.ready else 503)
        if not node.ready:
            response.headers.append(("Retry-After", "5"))
        return response

    def _check_operator(self, request: Request) -> None:
        """A forwarded request comes from a proxy on this machine, not from this machine."""
        forwarded = any(name in request.headers for name in _FORWARDED)
        if not forwarded and (not request.remote or is_loopback(request.remote)):
            return
        try:
            if self._rooms.authenticate(request).operate:
                return
        except Refused:
            pass
        raise Refused(NOT_FOUND)
