"""A stream that begins with bytes read before: nobody who reads it can tell."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from tornado.ioloop import IOLoop

from handlers.begun_stream import BegunStream


@pytest.fixture
def pair(io_loop: IOLoop) -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    near.setblocking(False)
    yield near, far
    far.close()
    near.close()


@pytest.mark.gen_test
@pytest.mark.parametrize("cut", [0, 1, 5, 10])
async def test_what_was_read_before_comes_first(pair: tuple[socket.socket, socket.socket], cut: int) -> None:
    whole = b"0123456789"
    near, far = pair
    stream = BegunStream(near, whole[:cut])
    far.sendall(whole[cut:])
    assert await stream.read_bytes(10) == whole
    stream.close()


@pytest.mark.gen_test
async def test_more_than_one_read_takes_is_given_in_pieces(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    begun = bytes(range(256)) * 1000
    stream = BegunStream(near, begun, read_chunk_size=4096)
    far.sendall(b"end")
    assert await stream.read_until(b"end") == begun + b"end"
    stream.close()


@pytest.mark.gen_test
async def test_the_peers_end_is_noticed_after_the_first_bytes(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    stream = BegunStream(near, b"first")
    far.close()
    assert await stream.read_until_close() == b"first"


@pytest.mark.gen_test
async def test_what_is_written_goes_out(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    stream = BegunStream(near, b"first")
    await stream.write(b"answer")
    assert far.recv(100) == b"answer"
    stream.close()
