"""Listening sockets: what accepted ones inherit, and what happens to addresses that are taken."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
from pathlib import Path
from typing import Any

import pytest

from server.sockets import (
    ListenError,
    connections_within,
    inode_of,
    listen_tcp,
    listen_unix,
    raise_file_limit,
    remove_unix,
)

OPTIONS: dict[str, Any] = {
    "send_buffer_bytes": 50_000,
    "receive_buffer_bytes": 20_000,
    "user_timeout_seconds": 12.5,
}
BUFFERS = {name: value for name, value in OPTIONS.items() if name.endswith("bytes")}


def accepted(listener: socket.socket) -> tuple[socket.socket, socket.socket]:
    """An accepted socket and the client's."""
    client = socket.socket(listener.family, socket.SOCK_STREAM)
    client.connect(listener.getsockname())
    client.sendall(b"x")
    listener.setblocking(True)
    listener.settimeout(10)
    return listener.accept()[0], client


def test_accepted_sockets_inherit_the_options() -> None:
    with listen_tcp("127.0.0.1", 0, **OPTIONS) as listener:
        near, client = accepted(listener)
        with near, client:
            wanted = {
                (socket.IPPROTO_TCP, socket.TCP_NODELAY): 1,
                (socket.SOL_SOCKET, socket.SO_KEEPALIVE): 1,
                (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE): 30,
                (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT): 12_500,
                (socket.SOL_SOCKET, socket.SO_SNDBUF): 100_000,  # the kernel doubles it for its own records
                (socket.SOL_SOCKET, socket.SO_RCVBUF): 40_000,
            }
            assert {option: near.getsockopt(*option) for option in wanted} == wanted


def test_a_buffer_of_0_is_left_to_the_kernel() -> None:
    with socket.socket() as plain:
        default = plain.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    options = OPTIONS | {"send_buffer_bytes": 0, "receive_buffer_bytes": 0}
    with listen_tcp("127.0.0.1", 0, **options) as listener:
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == default


def test_listening_does_not_block() -> None:
    with listen_tcp("127.0.0.1", 0, **OPTIONS) as listener, pytest.raises(BlockingIOError):
        listener.accept()


def test_a_port_of_0_is_a_free_one_and_a_taken_one_is_named() -> None:
    with listen_tcp("127.0.0.1", 0, **OPTIONS) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ListenError, match=rf"127\.0\.0\.1:{port}: Address already in use"):
            listen_tcp("127.0.0.1", port, **OPTIONS)


def test_ipv6_is_listened_on_too() -> None:
    with listen_tcp("::1", 0, **OPTIONS) as listener:
        assert listener.family == socket.AF_INET6


@pytest.mark.parametrize("host", ["192.0.2.1", "not an address"])
def test_an_address_that_is_not_ours_is_an_error_that_names_it(host: str) -> None:
    with pytest.raises(ListenError, match=f"{host}:0: "):
        listen_tcp(host, 0, **OPTIONS)


def test_a_unix_socket_serves(tmp_path: Path) -> None:
    with listen_unix(str(tmp_path / "sock"), **BUFFERS) as listener:
        near, client = accepted(listener)
        with near, client:
            assert near.recv(1) == b"x"


def test_a_unix_socket_that_a_dead_process_left_is_replaced(tmp_path: Path) -> None:
    path = str(tmp_path / "sock")
    listen_unix(path, **BUFFERS).close()
    assert os.path.exists(path)
    listen_unix(path, **BUFFERS).close()


def test_a_unix_socket_that_is_in_use_is_left_alone(tmp_path: Path) -> None:
    path = str(tmp_path / "sock")
    with listen_unix(path, **BUFFERS) as listener:
        with pytest.raises(ListenError, match="another process listens on it"):
            listen_unix(path, **BUFFERS)
        near, client = accepted(listener)
        near.close()
        client.close()


def test_a_unix_sockets_file_is_removed_by_who_made_it(tmp_path: Path) -> None:
    path = str(tmp_path / "sock")
    with listen_unix(path, **BUFFERS):
        inode = inode_of(path)
    remove_unix(path, inode)
    assert not os.path.exists(path)
    remove_unix(path, inode)


def test_a_successors_unix_socket_is_left_alone(tmp_path: Path) -> None:
    path = str(tmp_path / "sock")
    with listen_unix(path, **BUFFERS):
        inode = inode_of(path)
        os.rename(path, path + ".old")  # else the file system might give its number out again
        with listen_unix(path, **BUFFERS):
            remove_unix(path, inode)
            assert os.path.exists(path)


def test_a_file_in_the_place_of_a_unix_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    path.write_text("precious")
    with pytest.raises(ListenError, match="is there and is not a socket"):
        listen_unix(str(path), **BUFFERS)
    assert path.read_text() == "precious"


def test_a_folder_that_is_not_there_is_an_error_that_names_the_path(tmp_path: Path) -> None:
    path = str(tmp_path / "missing" / "sock")
    with pytest.raises(ListenError, match=f"{path}: No such file"):
        listen_unix(path, **BUFFERS)


def test_the_soft_limit_of_open_files_is_raised_to_the_hard_one() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        with contextlib.suppress(ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (before[1] - 1, before[1]))
        assert raise_file_limit() == before[1]
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize(
    ("files", "connections"), [(1, 1), (100, 75), (800, 600), (1024, 824), (1 << 20, (1 << 20) - 200)]
)
def test_some_files_are_kept_for_what_is_no_stream(files: int, connections: int) -> None:
    assert connections_within(files) == connections
