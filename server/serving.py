"""Serving: the one place that sees every part, and puts them together for `ringcast serve`.

Owns wiring, signals and exit codes. The order of a start: settings, file limit, relay, channels, sockets; nothing
listens before everything else works. The order of a stop: see server/node.py; a second signal ends the process at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

import click
import uvloop
from tornado.httpserver import HTTPServer

from config.problems import ConfigError
from config.settings import Settings
from config.sources import load
from handlers.application import Parts, make_application
from handlers.cors import Origins
from handlers.http_connections import HttpConnections
from handlers.publish import Publisher
from handlers.response_cache import ResponseCache
from handlers.rest import endpoint_routes
from handlers.revocations import Revoker
from handlers.rooms import MAIN, Rooms
from handlers.streams import Streams
from handlers.subscribe import Subscriber
from handlers.surface import StreamSurface
from handlers.vitals import Vitals
from server import host_source
from server.auth import Authenticator
from server.channel import Policy
from server.cluster import Cluster
from server.door import Door
from server.keys import InvalidKey
from server.logs import configure, get_logger
from server.node import Limits, Node
from server.notify import Notifier
from server.peers import Peers
from server.relay.memory import MemoryRelay
from server.relay.protocol import Relay, RelayUnavailable, Retention
from server.sockets import (
    ListenError,
    connections_within,
    inode_of,
    listen_tcp,
    listen_unix,
    raise_file_limit,
    remove_unix,
)
from server.supervision import cancelled, supervise

if TYPE_CHECKING:
    from apps.running import Applications
    from bridges.running import Bridges

FINISH_SECONDS = 5.0
STOP_SECONDS = 30.0  # what a stop may take beside the drain: thrice FINISH_SECONDS, and a relay that closes slowly
SECOND_SIGNAL_STATUS = 130

log = get_logger("serve")


class StartError(Exception):
    """The server can't start; the text is for the operator."""


def policy_of(settings: Settings, name: str, defaults: Mapping[str, Any] | None = None) -> Policy:
    """A channel's policy from the settings; `defaults` are an application's. With `memory:` the ring is the log, so its
    bounds are the retention."""
    own = settings.channel(name, defaults)
    ring = Retention(own.ring_events, own.ring_bytes, own.ring_seconds)
    retain = (
        ring
        if settings.relay.startswith("memory:")
        else Retention(own.retain_events, own.retain_bytes, own.retain_seconds)
    )
    return Policy(
        heartbeat_seconds=own.heartbeat_seconds,
        heartbeat_style=own.heartbeat_style,
        max_age_seconds=own.max_age_seconds,
        idle_seconds=own.idle_seconds,
        lag_policy=own.lag_policy,
        lag_events=own.lag_events,
        lag_bytes=own.lag_bytes,
        ring=ring,
        retain=retain,
        anonymous=own.anonymous,
        hello_event=own.hello_event,
        unknown_cursor=settings.unknown_cursor,
    )


def make_relay(settings: Settings) -> Relay:
    """The relay that the settings name."""
    common: dict[str, Any] = {
        "idempotency_seconds": settings.idempotency_seconds,
        "idempotency_keys": settings.idempotency_keys,
    }
    kind, _, rest = settings.relay.partition(":")
    if kind == "sqlite":
        from server.relay.sqlite import SqliteRelay  # a node in memory needs none of it

        return SqliteRelay(rest, synchronous=settings.sqlite_synchronous, **common)
    if kind != "memory":
        from server.relay.redis import RedisRelay
        from server.relay.redis_client import Target

        secret = settings.redis_password
        return RedisRelay(
            Target(settings.relay, settings.redis_username, secret.get_secret_value() if secret else None),
            prefix=settings.redis_prefix,
            idempotency_seconds=settings.idempotency_seconds,
            replicas=settings.redis_replicas,
            replicas_seconds=settings.redis_replicas_seconds,
            durable=settings.redis_durable,
            lag_seconds=settings.redis_lag_seconds,
            shards_of=lambda name: settings.channel(name).shards,
        )
    return MemoryRelay(**common)


def make_limits(settings: Settings) -> Limits:
    """The engine's limits. Raises StartError if the file limit can't hold `max_connections`."""
    file_limit = raise_file_limit()
    possible = connections_within(file_limit)
    if settings.max_connections > possible:
        raise StartError(
            f"max_connections is {settings.max_connections}, but the limit of {file_limit} open files allows "
            f"{possible}: raise LimitNOFILE or lower it"
        )
    beats = [settings.channel(name).heartbeat_seconds for name in settings.channels] + [settings.heartbeat_seconds]
    names = Limits.__slots__
    same = {
        name: getattr(settings, name)
        for name in names
        if name not in ("max_connections", "shortest_heartbeat_seconds", "max_channels")
    }
    return Limits(
        max_connections=settings.max_connections or possible,
        max_channels=settings.max_channels,
        shortest_heartbeat_seconds=min((beat for beat in beats if beat), default=0.0),
        **same,
    )


class Front:
    """What clients meet: the front door, the HTTP server behind it, and the surface that both ask.

    Owns how these are wired to each other and to a node, and how they end. Must never know of keys or of what listens.
    """

    def __init__(
        self,
        settings: Settings,
        node: Node,
        cluster: Cluster,
        rooms: Rooms,
        applications: Applications | None,
        bridges: Bridges | None = None,
    ) -> None:
        endpoints = [*(applications.endpoints if applications else ()), *(bridges.endpoints if bridges else ())]
        publisher = Publisher(rooms, max_body_bytes=settings.max_body_bytes, max_events=settings.max_batch_events)
        streams = Streams(applications.streams if applications else ())
        self.surface = StreamSurface(rooms, Subscriber(rooms, streams), publisher, streams, endpoints)
        connections = HttpConnections(
            self.surface,
            lambda stream, address: self._http.handle_stream(stream, address),
            most=settings.max_http_connections,
            max_body_bytes=settings.max_body_bytes,
        )
        parts = Parts(self.surface, Vitals(node, cluster, rooms), connections)
        more = endpoint_routes(endpoints, parts, rooms, applications.cache if applications else ResponseCache())
        self._http = HTTPServer(
            make_application(parts, Revoker(cluster, rooms), node.opener, more, console=settings.console),
            max_header_size=16_384,
            max_body_size=settings.max_body_bytes,
            idle_connection_timeout=settings.header_seconds,
            body_timeout=settings.body_seconds,
            decompress_request=False,
        )
        self.door = Door(
            asyncio.get_running_loop(),
            self.surface,
            node.opener,
            connections.take,
            connections.make_room,
            header_seconds=settings.header_seconds,
        )
        node.door_facts = self.door.facts
        node.accepting = self.door.state
        node.http_facts = connections.facts
        node.publishes_refused = self.surface.publishes_refused
        node.on_tick.append(self.door.expire)

    async def finish(self) -> None:
        """Answer what has begun to come, then close every connection."""
        await self.door.finish(FINISH_SECONDS)
        await self.surface.finish(FINISH_SECONDS)
        try:
            async with asyncio.timeout(FINISH_SECONDS):
                await self._http.close_all_connections()
        except TimeoutError:
            log.warning("http_connections_left")


class Server:
    """A node, what clients meet of it, and its sockets."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._policies: Mapping[str, Mapping[str, Any]] = {}
        self.node = Node(make_relay(settings), self._policy_of, make_limits(settings))
        try:
            self.authenticator = Authenticator(settings)
        except InvalidKey as error:
            raise StartError(str(error)) from None
        self.node.tokens_refused = self.authenticator.refusals
        rooms = Rooms(
            self.node.hub,
            self.node.admission,
            self.authenticator,
            Origins(settings.allowed_origins, development=settings.development),
            Peers(settings.trusted_proxies),
            self._policy_of,
            settings.open_channels,
        )
        self.cluster = Cluster(
            self.node.relay.board, self.node.broadcaster, self.authenticator.revocations, self.node.presence
        )
        self.applications: Applications | None = None
        if settings.apps:
            from apps.running import Applications  # a node without applications needs none of it

            self.applications = Applications(settings, self.node, self.cluster)
            self._policies = self.applications.policies
        self.bridges = self._make_bridges()
        self.front = Front(settings, self.node, self.cluster, rooms, self.applications, self.bridges)
        self.notifier = Notifier(self._status)
        self.node.on_tick.append(self.notifier.beat)
        self._signals = 0
        self._socket_inode = 0
        self.stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def _make_bridges(self) -> Bridges | None:
        """Those of the settings and of the applications. Raises StartError."""
        applications = self.applications.all if self.applications is not None else ()
        if not self.settings.bridges and not applications:
            return None
        from bridges.running import Bridges  # a node without any needs none of it

        try:
            return Bridges(self.settings, self.node, self.cluster.name, applications)
        except ValueError as error:
            raise StartError(str(error)) from None

    def _policy_of(self, name: str) -> Policy:
        return policy_of(self.settings, name, self._policies.get(name))

    async def start(self) -> None:
        """Everything up, then listen. Raises StartError."""
        settings = self.settings
        own = [MAIN, *([host_source.CHANNEL] if settings.host_source else []), *self._policies]
        await self.authenticator.keys.start()
        try:
            await self.node.start(list(dict.fromkeys([*own, *settings.channels])))
        except RelayUnavailable as error:
            raise StartError(f"relay {settings.relay}: {error.reason}") from None
        if self.applications is not None:
            await self._start_applications(self.applications)
        if self.bridges is not None:
            self.bridges.start(self._keep)
        port = self._listen()
        if settings.host_source:
            self._keep("host_source", lambda: host_source.run(self.node.hub, settings.host_source_seconds))
        self._keep("presence", self.cluster.run)
        log.info(
            "serving",
            url=f"http://{settings.host}:{port}/",
            socket=settings.socket,
            relay=settings.relay.partition(":")[0],
            durability=self.node.relay.durability,
            connections=self.node.admission.max_connections,
        )
        self.notifier.ready()
        if settings.development:
            log.warning(
                "development_mode",
                meaning="no key is configured: anybody on this machine may publish, subscribe and read private events",
            )
        database = settings.database.get_secret_value()
        if settings.apps and database.startswith("sqlite:") and settings.relay.startswith("redis"):
            log.warning(
                "database_of_one_node",
                meaning="applications of nodes that share a relay need one database: set RINGCAST_DATABASE to a postgresql://",
            )

    async def _start_applications(self, applications: Applications) -> None:
        from bridges.database import DatabaseUnavailable

        try:
            await applications.start(self._keep)
        except DatabaseUnavailable as error:
            raise StartError(f"database: {error.reason}") from None

    def _listen(self) -> int:
        """Open the door on its addresses; the TCP port. Raises StartError."""
        settings = self.settings
        buffers = {
            "send_buffer_bytes": settings.send_buffer_bytes,
            "receive_buffer_bytes": settings.receive_buffer_bytes,
        }
        try:
            tcp = listen_tcp(
                settings.host, settings.port, user_timeout_seconds=settings.tcp_user_timeout_seconds, **buffers
            )
            self.front.door.listen(tcp)
            if settings.socket:
                self.front.door.listen(listen_unix(settings.socket, **buffers))
                self._socket_inode = inode_of(settings.socket)
        except ListenError as error:
            raise StartError(f"can't listen on {error}") from None
        return int(tcp.getsockname()[1])

    def _keep(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(supervise(name, work)))

    def _status(self) -> str:
        """For `systemctl status`."""
        held = f"{self.node.admission.held} of {self.node.admission.max_connections} connections"
        return f"draining, {held} left" if self.node.draining else f"serving, {held}"

    def on_signal(self) -> None:
        """The first signal drains, the second ends the process."""
        self._signals += 1
        if self._signals > 1:
            log.warning("ended_at_once")
            os._exit(SECOND_SIGNAL_STATUS)
        self.stopping.set()

    async def run(self) -> None:
        """Serve until a signal, then drain and close."""
        await self.stopping.wait()
        self.node.begin_drain()
        self.notifier.stopping(self.settings.drain_seconds + STOP_SECONDS)
        self._stop_listening()
        await self.node.drain(self.settings.drain_seconds)
        await self.close()

    def _stop_listening(self) -> None:
        """Free the addresses at once, so that a successor may take them while this process drains."""
        self.front.door.stop_listening()
        if self.settings.socket and self._socket_inode:
            remove_unix(self.settings.socket, self._socket_inode)

    async def close(self) -> None:
        """End everything, whatever of it was started."""
        self._stop_listening()
        if self.bridges is not None:
            await self.bridges.stop()
        await cancelled(self._tasks)
        await self.front.finish()
        if self.applications is not None:
            await self.applications.stop()
        await self.authenticator.keys.stop()
        await self.cluster.leave()
        await self.node.stop()
        self.notifier.close()
        log.info("stopped")


def _log_unexpected(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What a callback of the loop let escape is a line like all others, and never a bare traceback."""
    log.error("unexpected", what=context.get("message", ""), exc_info=context.get("exception"))


async def _unless(event: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Run `work` to its end, or cancel it when the event is set: a start may have to wait for others."""
    task = asyncio.ensure_future(work)
    waiting = asyncio.ensure_future(event.wait())
    await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def serve_settings(settings: Settings) -> None:
    """Run a server to its end. Raises StartError."""
    server = Server(settings)
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_log_unexpected)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.on_signal)
    try:
        await _unless(server.stopping, server.start())
    except BaseException:
        await server.close()
        raise
    # What is there now stays: the collector need not look at it again, nor at 20,000 readers at every turn.
    gc.collect()
    gc.freeze()
    gc.set_threshold(2_000, 10, 10)
    await server.run()


def run_server(config: str | None, command_line: Mapping[str, object]) -> int:
    """Load settings and serve; the exit code."""
    try:
        settings = load(config, command_line).settings
    except ConfigError as error:
        click.echo(str(error), err=True)
        return 2
    configure(settings.log_format, settings.log_level)
    # Tornado's lines may hold a request's URL; what matters of them is logged by the handlers.
    logging.getLogger("tornado").addHandler(logging.NullHandler())
    logging.getLogger("tornado").propagate = False
    try:
        uvloop.run(serve_settings(settings))
    except StartError as error:
        log.error("not_started", reason=str(error))
        return 1
    return 0
