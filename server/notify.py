"""Notifications: what the service manager (systemd) is told of this process, in datagrams to `$NOTIFY_SOCKET`.

Owns the protocol of sd_notify(3): ready, stopping, a line for `systemctl status`, and the watchdog. The watchdog is fed
from the tick of the loop and from nowhere else: a process that is there and whose loop stands still is killed and
started again. It knows nothing of the relay, on purpose: an outage of Redis is no reason to lose the connections too.

Invariants: nothing is sent before `ready`; beats go on while it stops, for the loop does too; it never waits and never
raises, and a beat that can't be sent goes with the next tick. Without `$NOTIFY_SOCKET` it does nothing. Cost: one
comparison a tick.

Tried and rejected: sdnotify, systemd-python and others. The first is as short as this and unkept; the second needs a C
compiler and libsystemd's headers.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping

STATUS_SECONDS = 10.0  # between two status lines where no watchdog asks for more
MICROSECONDS = 1_000_000


class Notifier:
    """`status` gives the line for people. `environment` is the process's."""

    def __init__(self, status: Callable[[], str], environment: Mapping[str, str] = os.environ) -> None:
        self._status = status
        self._address = _address(environment.get("NOTIFY_SOCKET", ""))
        self._interval_seconds = _watchdog_seconds(environment) / 3 or STATUS_SECONDS
        self._socket: socket.socket | None = None
        self._serves = False
        self._sent = 0.0
        self._unsaid: tuple[str, ...] = ()
        if self._address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)

    def ready(self) -> None:
        """It serves."""
        self._serves = self._socket is not None
        if not self._send("READY=1", f"STATUS={self._status()}"):
            self._unsaid = ("READY=1",)

    def beat(self, now: float) -> None:
        """The loop runs. Called at every tick with time.monotonic(); speaks at a third of the watchdog's interval."""
        if (
            self._serves
            and now - self._sent >= self._interval_seconds
            and self._send(*self._unsaid, "WATCHDOG=1", f"STATUS={self._status()}")
        ):
            self._sent = now
            self._unsaid = ()

    def stopping(self, within_seconds: float) -> None:
        """It has begun to stop, which takes this long at most; the unit's own time counts if that is longer."""
        self._send("STOPPING=1", f"STATUS={self._status()}", f"EXTEND_TIMEOUT_USEC={within_seconds * MICROSECONDS:.0f}")

    def close(self) -> None:
        """Say nothing more."""
        self._serves = False
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, *assignments: str) -> bool:
        if self._socket is None:
            return False
        try:
            self._socket.sendto("\n".join(assignments).encode(), self._address)
        except OSError:
            return False
        return True


def _address(path: str) -> str:
    """Of the socket; a leading @ stands for the NUL of an abstract one. Other kinds (vsock) are for machines."""
    if path.startswith("@"):
        return "\0" + path[1:]
    return path if path.startswith("/") else ""


def _watchdog_seconds(environment: Mapping[str, str]) -> float:
    """How long the manager waits for a beat; 0 if it does not, or waits for another process's."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    text = environment.get("WATCHDOG_USEC", "")
    return int(text) / MICROSECONDS if text.isdigit() else 0.0
