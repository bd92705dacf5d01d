"""The bridges that run in this node: those of the settings, and those that applications bring.

Owns which there are, how each is made from settings, their start and stop, and what of them is seen at /ready, /stats
and /metrics. Must never know what a message means. A client library is imported when a bridge needs it, not before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from pydantic import SecretStr

from bridges.bridge import Bridge, metrics
from bridges.mapping import Mapping
from bridges.pubsub import Pusher, by_subscription
from config import bridges as config
from config.settings import Settings
from handlers.endpoints import Endpoint
from server.hub import Hub
from server.node import Node

if TYPE_CHECKING:
    from bridges.turns import RedisTurns
    from server.relay.redis_client import Target

MAX_WAITING = 10_000

Keep = Callable[[str, Callable[[], Awaitable[None]]], None]


@runtime_checkable
class Contributor(Protocol):
    """An application that brings bridges of its own."""

    def bridges(self, sources: Sources) -> Sequence[Bridge]:
        """Its bridges, made by `sources`; none where the settings name no source for them."""


@runtime_checkable
class Answering(Protocol):
    """A bridge that messages are sent to."""

    @property
    def endpoints(self) -> Sequence[Endpoint]:
        """What it answers."""


class Sources:
    """Makes bridges: addresses and secrets come from the settings, mappings from whoever asks. `holder` names this
    node among those that take turns."""

    def __init__(self, settings: Settings, hub: Hub, holder: str) -> None:
        self.settings = settings
        self._hub = hub
        self._holder = holder

    def nats(
        self,
        name: str,
        mappings: Sequence[Mapping],
        *,
        url: SecretStr | None = None,
        queue: str | None = None,
        max_waiting: int = MAX_WAITING,
    ) -> Bridge:
        """Core NATS; `nats_url` and `nats_queue` if no other are named."""
        from bridges.nats_connection import NatsTarget
        from bridges.nats_subjects import NatsSubjects

        return NatsSubjects(
            name,
            self._hub,
            NatsTarget.of(self.settings, url),
            mappings,
            queue=queue or self.settings.nats_queue,
            max_waiting=max_waiting,
        )

    def jetstream(self, name: str, mappings: Sequence[Mapping], wanted: config.NatsStream) -> Bridge:
        """A durable consumer of JetStream: which one, `wanted` says."""
        from bridges.jetstream import Consumer, JetStream
        from bridges.nats_connection import NatsTarget

        return JetStream(
            name,
            self._hub,
            NatsTarget.of(self.settings, wanted.url),
            mappings,
            Consumer(wanted.stream, wanted.durable, wanted.domain, wanted.create, tuple(wanted.subjects)),
            ordered=wanted.ordered,
            turns=self._turns(name) if wanted.ordered else None,
        )

    def _turns(self, name: str) -> RedisTurns | None:
        """By a lease where the log is, since who can't reach it must not read. None where this is the only node."""
        if not self._shared:
            return None
        from bridges.turns import RedisTurns
        from server.relay.redis_client import connect

        target = self._relay_target()
        return RedisTurns(lambda: connect(target), self.settings.redis_prefix, name, self._holder)

    def redis(
        self, name: str, mappings: Sequence[Mapping], target: Target | None = None, *, max_waiting: int = MAX_WAITING
    ) -> Bridge:
        """Redis pub/sub, of the relay's Redis if no other is named."""
        from bridges.redis_pubsub import RedisPubSub

        return RedisPubSub(
            name,
            self._hub,
            target or self._relay_target(),
            mappings,
            holder=self._holder,
            prefix=self.settings.redis_prefix,
            max_waiting=max_waiting,
        )

    def pubsub(
        self,
        name: str,
        mappings: Sequence[Mapping],
        *,
        push: Pusher | None = None,
        dead_letter: bool = False,
        max_waiting: int = config.PUBSUB_MAX_WAITING,
    ) -> Bridge:
        """Subscriptions of Google Pub/Sub that are pulled from, or those that push to this server, if `push` says who
        may (`pusher`). Raises ValueError where the library for pulling is not installed."""
        subscriptions = by_subscription(mappings, self.settings.pubsub_project)
        if push is not None:
            from bridges.pubsub_push import PubSubPush

            return PubSubPush(name, self._hub, subscriptions, push, dead_letter=dead_letter, max_waiting=max_waiting)
        try:
            from bridges.pubsub_connection import PubSubTarget
            from bridges.pubsub_pull import PubSubPull
        except ModuleNotFoundError as error:
            raise ValueError(f"needs the package google-cloud-pubsub (ringcast[pubsub]): {error}") from error
        target = PubSubTarget(self.settings.pubsub_url, self.settings.pubsub_credentials)
        return PubSubPull(name, self._hub, target, subscriptions, dead_letter=dead_letter, max_waiting=max_waiting)

    def pusher(self, audience: str | None = None, email: str | None = None) -> Pusher:
        """Who may push, as the settings say where nothing else is. Raises ValueError if that is anybody."""
        settings = self.settings
        audience, email = audience or settings.pubsub_audience, email or settings.pubsub_email
        if audience is None or email is None:
            raise ValueError("pushes need an audience and an email, or pubsub_audience and pubsub_email")
        return Pusher(audience, email, settings.pubsub_issuer, settings.pubsub_jwks_url)

    @property
    def _shared(self) -> bool:
        return not self.settings.relay.startswith(("memory:", "sqlite:"))

    def _relay_target(self) -> Target:
        from server.relay.redis_client import Target

        settings = self.settings
        return Target(settings.relay, settings.redis_username, _revealed(settings.redis_password))

    def make(self, wanted: config.BridgeSettings) -> Bridge:
        """The bridge that the settings want. Raises ValueError if it cannot be."""
        name, mappings = wanted.name, [_mapping(wanted.name, mapping) for mapping in wanted.mappings]
        if isinstance(wanted, config.NatsSubjects):
            return self.nats(name, mappings, url=wanted.url, queue=wanted.queue, max_waiting=wanted.max_waiting)
        if isinstance(wanted, config.NatsStream):
            return self.jetstream(name, mappings, wanted)
        if isinstance(wanted, config.RedisPubSub):
            return self.redis(name, mappings, _target(wanted), max_waiting=wanted.max_waiting)
        if isinstance(wanted, config.PubSub):
            return self._pubsub(name, mappings, wanted)
        raise ValueError(f"bridge {name}: no such kind")

    def _pubsub(self, name: str, mappings: Sequence[Mapping], wanted: config.PubSub) -> Bridge:
        try:
            push = self.pusher(wanted.audience, wanted.email) if wanted.delivery == "push" else None
            return self.pubsub(
                name, mappings, push=push, dead_letter=wanted.dead_letter, max_waiting=wanted.max_waiting
            )
        except ValueError as error:
            raise ValueError(f"bridge {name}: {error}") from error


class Bridges:
    """See the module's head. `name` is this node's own. Raises ValueError for a bridge that cannot be made."""

    def __init__(self, settings: Settings, node: Node, name: str, applications: Iterable[object] = ()) -> None:
        sources = Sources(settings, node.hub, name)
        self.all = [sources.make(wanted) for wanted in settings.bridges]
        for application in applications:
            if isinstance(application, Contributor):
                self.all += application.bridges(sources)
        names = [bridge.name for bridge in self.all]
        if len(set(names)) < len(names):
            raise ValueError(f"two bridges have one name, of {', '.join(sorted(names))}")
        for bridge in self.all:
            node.checks[f"bridge_{bridge.name}"] = lambda bridge=bridge: bridge.state  # type: ignore[misc]
        if self.all:
            node.more_metrics.append(lambda: metrics(self.all))
            node.more_stats["bridges"] = self._facts

    @property
    def endpoints(self) -> list[Endpoint]:
        """What bridges answer."""
        return [endpoint for bridge in self.all if isinstance(bridge, Answering) for endpoint in bridge.endpoints]

    def _facts(self) -> dict[str, object]:
        return {bridge.name: bridge.facts() for bridge in self.all}

    def start(self, keep: Keep) -> None:
        """Begin; `keep` runs a task for ever."""
        for bridge in self.all:
            keep(f"bridge {bridge.name}", bridge.run)

    async def stop(self) -> None:
        """Take no more, and see that what has come is in the logs."""
        await asyncio.gather(*(bridge.stop() for bridge in self.all))


def _mapping(name: str, mapping: config.MappingSettings) -> Mapping:
    try:
        return Mapping(**mapping.model_dump())
    except ValueError as error:
        raise ValueError(f"bridge {name}: {error}") from None


def _target(wanted: config.RedisPubSub) -> Target | None:
    from server.relay.redis_client import Target

    url = _revealed(wanted.url)
    return None if url is None else Target(url, wanted.username, _revealed(wanted.password))


def _revealed(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()
