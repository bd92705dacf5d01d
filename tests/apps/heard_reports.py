"""What workers report of jobs, heard on its way to a node, for the checker of faults.

A node keeps of a job only how it stands, so what is acknowledged is noted where it is said: the state in a node's
answer to a report that it took. Owns the passing on, and these notes. Must know no fault.
Invariants: what a node answers reaches the worker, and no answer of its own does; a report that is said again and is no
news is answered by the state that is known, so each state is noted once.
"""

from __future__ import annotations

import http.client
import json
import threading
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.apps.audience import Audience, Key
from tests.apps.jobbing import ROOT
from tests.faults.checker import History
from tests.harness.local_site import LocalSite
from tests.harness.process import Node
from tests.harness.stream import Block

ANSWERED = ("Content-Type", "Retry-After")


class HeardReports(LocalSite):
    """Workers are led here instead of to `node`. It passes on one request after the other."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._taken: dict[str, list[Key]] = {}
        self._unanswered: list[dict[str, Any]] = []
        self._turn = threading.Lock()
        heard = self

        class Answers(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.pass_on()

            def do_POST(self) -> None:
                self.pass_on()

            def pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                with heard._turn:
                    answer = heard._pass_on(self.command, self.path, body)
                if answer is None:
                    return  # the connection ends
                status, headers, text = answer
                self.send_response(status)
                for name in ANSWERED:
                    if name.lower() in headers:
                        self.send_header(name, headers[name.lower()])
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

        super().__init__(Answers, forgiving=True)

    def _pass_on(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes] | None:
        try:
            answer = self._node.request(method, path, body, Content_Type="application/json")
        except (OSError, http.client.HTTPException):
            if path.endswith("/updates"):
                self._unanswered.append(json.loads(body))
            return None
        if path.endswith("/updates") and answer[0] == 200:
            state = json.loads(answer[2])
            taken = self._taken.setdefault(state["jobId"], [])
            if _key(state) not in taken:
                taken.append(_key(state))
        return answer

    def watched(self, job_id: str, seed: int) -> Audience:
        """Everybody who watches a job from now on."""
        return Audience([self._node.port], _told, f"{ROOT}/{job_id}/events", seed=seed)

    def history(self, job_id: str, audience: Audience) -> History:
        """Wait until the job's streams have ended; the history of it."""
        taken = self._taken.setdefault(job_id, [])
        doubtful = {_key(one): None for one in self._unanswered if one["jobId"] == job_id and _key(one) not in taken}
        return audience.judged(taken, doubtful=list(doubtful), ends=True)


def _told(block: Block) -> Key | None:
    return _key(json.loads(block.data or "")) if block.type == "message" else None


def _key(state: dict[str, Any]) -> Key:
    return state["timestamp"], state["status"], state["stage"], state["progress"]
