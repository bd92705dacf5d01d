"""What a crowd needs before it can begin: something for each topic, made once for all users of this process.

Owns that it is made once, and how a server is asked for it. Must know no application. Cost: one making for each topic,
for which all users wait.
"""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

from locust.env import Environment

ANSWER_SECONDS = 30.0


class Furnishing:
    """`make` makes what a topic needs. Users that come while it does wait for it."""

    def __init__(self, make: Callable[[Environment, int], Any]) -> None:
        self._make = make
        self._made: dict[int, Any] = {}
        self._turn = threading.Lock()

    def of(self, environment: Environment, topic: int) -> Any:
        """What a topic has."""
        with self._turn:
            if topic not in self._made:
                self._made[topic] = self._make(environment, topic)
            return self._made[topic]


def posted(environment: Environment, path: str, body: object, headers: Mapping[str, str]) -> tuple[int, Any]:
    """Status and JSON of an answer. Raises OSError."""
    request = urllib.request.Request(
        f"{environment.host}{path}", json.dumps(body).encode(), {"Content-Type": "application/json", **headers}
    )
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, None
