"""Watches and holds back the disk flushes of a server: each `fsync` and `fdatasync` of its process waits for this
side's leave.

A seccomp filter with a listener (Linux 5.5 or newer, no privileges) is set by a thread that then starts the server:
the server inherits the filter, the tests' other threads don't have it, and the listener stays here.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import platform
import select
import struct
import threading

from tests.harness.process import Node

CALLS = {"x86_64": (317, 74, 75), "aarch64": (277, 82, 83)}
"""Numbers of seccomp, fsync and fdatasync by machine."""

PR_SET_NO_NEW_PRIVS = 38
SET_MODE_FILTER, NEW_LISTENER = 1, 8
RECEIVE, SEND = 0xC0502100, 0xC0182101
CONTINUE = 1


def _listener() -> int:
    """Set the filter on the calling thread and what it starts; the descriptor that its calls are told on."""
    seccomp, fsync, fdatasync = CALLS[platform.machine()]
    program = [
        (0x20, 0, 0, 0),
        (0x15, 2, 0, fsync),
        (0x15, 1, 0, fdatasync),
        (0x06, 0, 0, 0x7FFF0000),
        (0x06, 0, 0, 0x7FC00000),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    filter_ = ctypes.create_string_buffer(struct.pack("HL", len(program), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    listener = int(libc.syscall(seccomp, SET_MODE_FILTER, NEW_LISTENER, filter_))
    assert listener >= 0, os.strerror(ctypes.get_errno())
    return listener


class Flushes:
    """Starts a node and answers for its flushes until it ends. `count` is how many were let through."""

    def __init__(self, node: Node) -> None:
        self.count = 0
        self.waiting = False
        self._leave = threading.Event()
        self._leave.set()
        self._ready = threading.Event()
        self._listener = -1
        self._starter = threading.Thread(target=self._start, args=(node,))
        self._starter.start()
        assert self._ready.wait(10), "the filter was refused"
        self._answering = threading.Thread(target=self._answer, daemon=True)
        self._answering.start()
        self._starter.join(30)

    def _start(self, node: Node) -> None:
        self._listener = _listener()
        self._ready.set()
        node.start()

    def hold(self) -> None:
        """From now on a flush waits."""
        self._leave.clear()

    def release(self) -> None:
        """Let the waiting flush and all later ones through."""
        self._leave.set()

    def _answer(self) -> None:
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        while not poll.poll()[0][1] & select.POLLHUP:
            notice = bytearray(80)
            with contextlib.suppress(FileNotFoundError, InterruptedError):
                fcntl.ioctl(self._listener, RECEIVE, notice)
                self.waiting = True
                self._leave.wait(60)
                fcntl.ioctl(self._listener, SEND, notice[:8] + struct.pack("qiI", 0, 0, CONTINUE))
                self.count += 1
                self.waiting = False
        os.close(self._listener)
