"""Sockets: listening ones with the options that every accepted one inherits, and the process's file limit.

Owns socket options. Linux copies them from the listener to accepted sockets, so they cost nothing per connection. Must
never know of requests.
"""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import stat

BACKLOG = 4_096
KEEPALIVE_IDLE_SECONDS = 30
KEEPALIVE_INTERVAL_SECONDS = 10
KEEPALIVE_PROBES = 3
RESERVED_FILES = 200  # for the log, the store, publishers and everything that is not a stream


class ListenError(Exception):
    """The address can't be listened on; the text says which and why."""


def listen_tcp(
    host: str, port: int, *, send_buffer_bytes: int, receive_buffer_bytes: int, user_timeout_seconds: float
) -> socket.socket:
    """A listening, non-blocking TCP socket. Raises ListenError."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise ListenError(f"{host}:{port}: {error.strerror or error}") from None
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
    # Unacknowledged bytes end the connection after this; without it a vanished peer is kept for a quarter of an hour.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(user_timeout_seconds * 1000))
    _set_buffers(sock, send_buffer_bytes, receive_buffer_bytes)
    try:
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise ListenError(f"{host}:{port}: {error.strerror or error}") from None
    sock.setblocking(False)
    return sock


def listen_unix(path: str, *, send_buffer_bytes: int, receive_buffer_bytes: int) -> socket.socket:
    """A listening, non-blocking Unix socket; one that a dead process left is replaced. Raises ListenError."""
    _remove_dead(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    _set_buffers(sock, send_buffer_bytes, receive_buffer_bytes)
    try:
        sock.bind(path)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise ListenError(f"{path}: {error.strerror or error}") from None
    sock.setblocking(False)
    return sock


def inode_of(path: str) -> int:
    """What tells this file from a later one of the same name."""
    return os.stat(path).st_ino


def remove_unix(path: str, inode: int) -> None:
    """Remove a Unix socket's file, unless it is a successor's by now (or gone)."""
    with contextlib.suppress(FileNotFoundError):
        if inode_of(path) == inode:
            os.unlink(path)


def _set_buffers(sock: socket.socket, send_buffer_bytes: int, receive_buffer_bytes: int) -> None:
    """Bound what the kernel holds per connection: for a slow reader, and for a client that pushes bytes at us."""
    if send_buffer_bytes:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)
    if receive_buffer_bytes:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)


def _remove_dead(path: str) -> None:
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise ListenError(f"{path}: is there and is not a socket")
    except FileNotFoundError:
        return
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        try:
            probe.connect(path)
        except OSError:
            os.unlink(path)
            return
    raise ListenError(f"{path}: another process listens on it")


def raise_file_limit() -> int:
    """Raise the soft limit of open files to the hard one; the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def connections_within(file_limit: int) -> int:
    """How many streaming connections a file limit allows."""
    return max(1, file_limit - min(RESERVED_FILES, file_limit // 4))
