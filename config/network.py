"""Settings of sockets and requests, and of who is let in.

Owns their ranges and explanations; the server does what they say.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, field_validator
from pydantic_settings import NoDecode

from config.addresses import check_networks
from config.fields import (
    COMMA_SEPARATED,
    KIB,
    MIB,
    Connections,
    Group,
    PerSecond,
    Port,
    PositiveBytes,
    PositiveConnections,
    PositiveEvents,
    PositiveShortSeconds,
    SliceMilliseconds,
    SocketBytes,
    setting,
)

# sun_path is 108 bytes in Linux, the last one a NUL.
MAX_SOCKET_PATH_BYTES = 107


class Listening(Group):
    """Where the server listens, and how long and large a request may be."""

    host: str = setting(
        "127.0.0.1",
        "Address to listen on.",
        why="Without a key everybody may publish, so the default is reachable from this machine only; the server "
        "refuses any other address then.",
    )
    port: Port = setting(8888, "TCP port to listen on.", zero="the kernel picks a free port")
    socket: str | None = setting(
        None,
        "Path of a Unix socket to listen on as well.",
        why="One nginx has about 28,000 ephemeral ports towards one TCP port; a Unix socket has no such limit.",
    )
    trusted_proxies: Annotated[list[str], NoDecode, COMMA_SEPARATED, AfterValidator(check_networks)] = setting(
        [],
        "Networks (CIDR) whose `X-Forwarded-For` is believed.",
        why="Anybody can send the header; believed from everybody it would make limits per address worthless.",
    )
    header_seconds: PositiveShortSeconds = setting(
        15.0,
        "Longest time a client may take to send its request's head.",
        why="A client that sends a byte now and then would hold a connection for ever.",
    )
    body_seconds: PositiveShortSeconds = setting(
        10.0, "Longest time a client may take to send its request's body.", why="As above, for publishers."
    )
    max_body_bytes: PositiveBytes = setting(
        1 * MIB, "Largest request body; 413 beyond.", why="A body is held in memory whole before it is checked."
    )
    max_frame_bytes: PositiveBytes = setting(
        1 * MIB,
        "Largest encoded event; 413 beyond.",
        why="Line breaks in data grow in the encoding: 1 MiB of them would be 7 MiB for each reader.",
    )
    max_batch_events: PositiveEvents = setting(
        10_000, "Most events (lines) in one NDJSON publish.", why="All of a batch is in memory at once."
    )
    send_buffer_bytes: SocketBytes = setting(
        128 * KIB,
        "Kernel's send buffer of each connection.",
        zero="the kernel's automatic size (up to 4 MiB a connection by default)",
        why="Bounds what a reader that does not read can hold in the kernel.",
    )
    receive_buffer_bytes: SocketBytes = setting(
        16 * KIB,
        "Kernel's receive buffer of each connection.",
        zero="the kernel's automatic size",
        why="A reader has nothing to send after its request.",
    )
    tcp_user_timeout_seconds: PositiveShortSeconds = setting(
        25.0,
        "How long sent bytes may stay unacknowledged before the kernel ends the connection.",
        why="A peer that vanished is noticed within two heartbeats.",
    )

    @field_validator("host")
    @classmethod
    def _check_host(cls, value: str) -> str:
        if not value or value != value.strip() or "/" in value:
            raise ValueError("must be an address or a name; 0.0.0.0 means every IPv4 address")
        return value

    @field_validator("socket")
    @classmethod
    def _check_socket(cls, value: str | None) -> str | None:
        if value is not None and not 0 < len(value.encode()) <= MAX_SOCKET_PATH_BYTES:
            raise ValueError(f"must be a path of 1 to {MAX_SOCKET_PATH_BYTES} bytes")
        return value


class Admission(Group):
    """How many connections are held.

    A connection over a limit is refused with a hint when to come back; no stream is ended for it.
    """

    max_connections: Connections = setting(
        0,
        "Most streaming connections in all.",
        zero="as many as the process's file limit allows",
        why="The server refuses to start with more than the file limit can hold.",
    )
    max_connections_per_address: Connections = setting(0, "Most streaming connections of one address.", zero="no limit")
    max_connections_per_subject: Connections = setting(
        0, "Most streaming connections of one token subject (`sub`).", zero="no limit"
    )
    opens_per_second: PerSecond = setting(
        0.0,
        "Rate of new streaming connections in all.",
        zero="no limit",
        why="After a network failure all clients come back at once.",
    )
    opens_burst: PositiveConnections = setting(1000, "New connections that may exceed the rate at once.")
    max_http_connections: Connections = setting(
        1000,
        "Most connections that are no streams: the console, large publishes, health checks. Beyond it the one that has "
        "been idle longest is closed; if all are at work, the new one gets 503.",
        zero="no limit",
        why="Each holds a file descriptor that a stream could have, and while a publish comes in up to "
        "`max_body_bytes` of memory.",
    )


class Broadcasting(Group):
    """How the event loop is shared between readers.

    The defaults suit one core; change them with a benchmark beside you.
    """

    slice_ms: SliceMilliseconds = setting(
        4.0,
        "Longest time of writing to readers before publishers and new connections get their turn.",
        why="A sweep over 20,000 readers takes about a fifth of a second.",
    )
    span_bytes: PositiveBytes = setting(
        256 * KIB, "Most bytes joined into one write to a reader.", why="Long writes to one reader delay the others."
    )
    backlog_bytes: PositiveBytes = setting(
        32 * MIB,
        "Unsent bytes of events for one selection at which publishers are made to wait.",
        why="Publishers that are faster than the machine can send would fill its memory.",
    )
