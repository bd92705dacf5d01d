"""A publisher that knows what was acknowledged to it."""

from __future__ import annotations

import http.client
from urllib.parse import urlencode

from tests.harness.process import Node

FORM = "application/x-www-form-urlencoded"


class Publisher:
    """Publishes numbered events on one topic of channel main. `acknowledged` has their data by id, in order."""

    def __init__(self, node: Node, topic: str) -> None:
        self.node = node
        self.topic = topic
        self.acknowledged: dict[str, str] = {}
        self._number = 0

    def publish(self, count: int = 1) -> None:
        """Publish `count` more; each must be acknowledged."""
        for _ in range(count):
            self._publish_one()

    def publish_until_refused(self) -> None:
        """Publish until the server is gone."""
        try:
            while True:
                self._publish_one()
        except (OSError, http.client.HTTPException):
            pass

    def _publish_one(self) -> None:
        self._number += 1
        data = f"event {self._number}"
        body = urlencode({"topic": self.topic, "data": data})
        status, _, answer = self.node.request("POST", "/.well-known/mercure", body, Content_Type=FORM)
        assert status == 200, answer
        self.acknowledged[answer.decode()] = data

    def check_received(self, messages: list[tuple[str, str, str]], *, deaths: int) -> None:
        """Every acknowledged event once, in order. One a death, whose answer the kill swallowed, may be there too."""
        ids = [event_id for _, _, event_id in messages]
        assert ids == sorted(set(ids)), "repeated or out of order"
        found = {event_id: data for _, data, event_id in messages}
        assert {event_id: found.get(event_id) for event_id in self.acknowledged} == self.acknowledged, "lost"
        assert len(set(found) - set(self.acknowledged)) <= deaths
