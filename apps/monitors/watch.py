"""The stream of a tenant's events (M1), and how many of them a tenant may have (M6).

Owns who is admitted and to what: the events whose one topic is the tenant's, and no others, live or replayed. A stream
lives by the token's rights, so it ends when they do. Must never know what the events mean.

Invariants: who is refused for a limit comes back later by itself (contract, Never stranded). Streams on other nodes
count as of their last registration, so the limit may be passed by what comes within those seconds. Streams that wait
for the relay count when they open, so that no crowd of them gets past the limit.
Cost: an index look-up per stream; a look at the other nodes every `LOOK_SECONDS`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any

from apps.monitors.limits import Buckets
from apps.monitors.model import topic_of
from apps.monitors.tokens import Tokens, tenant_of
from handlers.answers import Refused, bad
from handlers.fields import parse_last
from handlers.streams import Admitted, StreamCall
from server.channel import Channel
from server.cluster import Cluster
from server.endings import RATE_LIMITED, TOO_MANY
from server.event import is_safe
from server.hub import Hub
from server.relay.protocol import RelayUnavailable
from server.selection import Selection
from server.selectors import exact_selector

LOOK_SECONDS = 5.0
MAX_TYPES = 20
MAX_TYPE_CHARACTERS = 64


class Watch:
    """`most` streams a tenant (0: no limit), `rate` of new ones."""

    def __init__(self, tokens: Tokens, hub: Hub, cluster: Cluster, channel: str, *, most: int, rate: Buckets) -> None:
        self._tokens = tokens
        self._hub = hub
        self._cluster = cluster
        self._channel = channel
        self._most = most
        self._rate = rate
        self._elsewhere: dict[str, int] = {}
        self.refused = {TOO_MANY.code: 0, RATE_LIMITED.code: 0}

    @property
    def channel(self) -> Channel:
        return self._hub.channels[self._channel]

    def admit(self, call: StreamCall) -> Admitted:
        """The stream of the token's tenant. Raises Refused."""
        principal = self._tokens.of_stream(call)
        tenant = tenant_of(principal)
        types, last = _types(call.parameters), parse_last(call.parameters.get("last"))
        self._check_room(tenant)
        if not self._rate.take(str(tenant)):
            self.refused[RATE_LIMITED.code] += 1
            raise Refused(RATE_LIMITED, reason="too many new streams of this tenant")
        topic = exact_selector(topic_of(tenant))
        selection = Selection(frozenset([topic]), types, (topic,))
        return Admitted(selection, principal, last, look_again=partial(self._check_room, tenant))

    def _check_room(self, tenant: int) -> None:
        if self._most and self.streams_of(tenant) + self._elsewhere.get(str(tenant), 0) >= self._most:
            self.refused[TOO_MANY.code] += 1
            raise Refused(TOO_MANY, reason=f"at most {self._most} streams of one tenant")

    def streams_of(self, tenant: int) -> int:
        """How many streams of a tenant this node holds."""
        return sum(feed.members for feed in self.channel.index.of_topic(topic_of(tenant)))

    def tenants(self) -> int:
        """How many tenants have streams on this node."""
        return len({feed.selection.topics for feed in self.channel.feeds.values()})

    async def look_around(self) -> None:
        """See how many streams tenants have on other nodes, for ever."""
        while True:
            try:
                self._elsewhere = self._counted(await self._cluster.stats())
            except RelayUnavailable:
                pass  # then the last numbers count
            await asyncio.sleep(LOOK_SECONDS)

    def _counted(self, stats: Mapping[str, Any]) -> dict[str, int]:
        counts: dict[str, int] = {}
        for node in stats["nodes"]:
            held = node.get("by_channel_and_tenant")
            if node.get("node") == self._cluster.name or not isinstance(held, dict):
                continue
            for name, number in held.items():
                channel, _, tenant = name.partition(" ")
                if channel == self._channel and isinstance(number, int):
                    counts[tenant] = counts.get(tenant, 0) + number
        return counts


def _types(parameters: Mapping[str, str]) -> frozenset[str] | None:
    """The types that are wanted; None for all."""
    if "types" not in parameters:
        return None
    types = parameters["types"].split(",")
    if len(types) > MAX_TYPES:
        raise bad("types", f"at most {MAX_TYPES}")
    if not all(1 <= len(one) <= MAX_TYPE_CHARACTERS and is_safe(one) for one in types):
        raise bad("types", f"must be names of at most {MAX_TYPE_CHARACTERS} characters, with commas between them")
    return frozenset(types)
