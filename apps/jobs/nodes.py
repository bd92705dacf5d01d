"""The nodes as the worker asks them: one request at a time to one of them, in JSON.

Owns the connection, the worker's token, and the difference between an answer that may be another one later (`Away`) and
one that stays (`Refusal`). Must never know what is asked. A node that does not answer is left for the next.
Cost: a connection per request, which Tornado's client closes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import ujson
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.simple_httpclient import SimpleAsyncHTTPClient

from apps.workers import nodes_of
from config.settings import Settings
from server.logs import get_logger

ANSWER_SECONDS = 5.0
MAX_ANSWER_BYTES = 1 << 20
# What is wrong with a request stays wrong. Anything else (a token that is yet to be set, a node that starts) may pass.
HOPELESS = (400, 404, 409, 413, 415, 422)

log = get_logger("job_worker")


class Away(Exception):
    """Nobody takes it now. `reason` holds no secrets."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Refusal(Exception):
    """It will not be taken later either."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Nodes:
    """`servers` are asked in turn when one does not answer. `most` requests at a time."""

    def __init__(self, servers: Sequence[str], token: str, most: int) -> None:
        self._servers = list(servers)
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._client = SimpleAsyncHTTPClient(
            force_instance=True, max_clients=most, max_body_size=MAX_ANSWER_BYTES, max_buffer_size=MAX_ANSWER_BYTES
        )
        self.state = "ok"

    @classmethod
    def of(cls, settings: Settings) -> Nodes:
        """Those of the settings."""
        servers = nodes_of(settings, settings.jobs_servers)
        # Each job may report while it beats; and there is one claim.
        most = 2 * settings.jobs_concurrency + 1
        return cls(servers, settings.jobs_worker_token.get_secret_value(), most)

    async def ask(self, method: str, path: str, body: object = None) -> Any:
        """What a node answers; None to 204. Raises Away, Refusal."""
        server = self._servers[0]
        headers = dict(self._headers)
        if body is not None:
            headers["Content-Type"] = "application/json"
        request = HTTPRequest(
            server + path,
            method,
            headers,
            None if body is None else ujson.dumps(body, ensure_ascii=False, escape_forward_slashes=False),
            connect_timeout=ANSWER_SECONDS,
            request_timeout=ANSWER_SECONDS,
            follow_redirects=False,
            decompress_response=False,
        )
        try:
            async with asyncio.timeout(2 * ANSWER_SECONDS):  # also of the wait for a turn
                answer = await self._client.fetch(request, raise_error=False)
        except (HTTPClientError, OSError, TimeoutError) as error:
            raise self._away(server, f"does not answer ({type(error).__name__})") from None
        if answer.code in HOPELESS:
            raise Refusal(answer.code, _reason(answer.body))
        if not 200 <= answer.code < 300:
            raise self._away(server, f"answered {answer.code}")
        self._note("ok")
        return None if answer.code == 204 else _read(answer.body)

    def _away(self, server: str, what: str) -> Away:
        if self._servers[0] == server:
            self._servers.append(self._servers.pop(0))
        self._note(f"{server} {what}")
        return Away(self.state)

    def _note(self, state: str) -> None:
        """One line when it turns."""
        if (state == "ok") != (self.state == "ok"):
            if state == "ok":
                log.info("server_found")
            else:
                log.error("server_away", reason=state)
        self.state = state

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()


def _read(body: bytes) -> Any:
    try:
        return ujson.loads(body)
    except ValueError:
        raise Away("the answer is not JSON: is it a node?") from None


def _reason(body: bytes) -> str:
    try:
        facts = ujson.loads(body)
    except ValueError:
        return "refused"
    return str(facts.get("reason", "refused")) if isinstance(facts, dict) else "refused"
