"""Kept answers of endpoints."""

from __future__ import annotations

from handlers.endpoints import Call, Endpoint
from server.exchange import Response


class ResponseCache:
    """Answers of endpoints with `keep_seconds`."""

    async def answer(self, endpoint: Endpoint, call: Call) -> Response:
        """The endpoint's answer, kept or made."""
        response = (await endpoint.run(call)).response()
        response.headers.append(("X-Cache", "MISS"))
        return response
