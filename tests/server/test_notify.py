"""Notifications to the service manager, against a real datagram socket and a clock of the test's own."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.notify import STATUS_SECONDS, Notifier


class NotifySocket:
    """The other end of `$NOTIFY_SOCKET`."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.setblocking(False)

    def heard(self) -> list[list[str]]:
        """The datagrams since the last call, as lines."""
        found = []
        while True:
            try:
                found.append(self.socket.recv(4096).decode().split("\n"))
            except BlockingIOError:
                return found


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[NotifySocket]:
    made = NotifySocket(str(tmp_path / "notify"))
    yield made
    made.socket.close()


@pytest.fixture
def notifier(tmp_path: Path) -> Iterator[Notifier]:
    """With a watchdog of four seconds."""
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "4000000"}
    made = Notifier(lambda: "some state", environment)
    yield made
    made.close()


def test_nothing_is_said_before_it_serves(systemd: NotifySocket, notifier: Notifier) -> None:
    for now in range(100):
        notifier.beat(float(now))
    assert systemd.heard() == []
    notifier.ready()
    assert systemd.heard() == [["READY=1", "STATUS=some state"]]


def test_a_beat_is_sent_at_a_third_of_the_watchdogs_interval(systemd: NotifySocket, notifier: Notifier) -> None:
    notifier.ready()
    systemd.heard()
    times = []
    for tick in range(400, 480):
        notifier.beat(tick / 4)
        times += [tick / 4 for said in systemd.heard() if said == ["WATCHDOG=1", "STATUS=some state"]]
    assert times == [100 + 1.5 * number for number in range(14)]  # by ticks of a quarter of a second


def test_beats_go_on_while_it_stops_and_end_with_it(systemd: NotifySocket, notifier: Notifier) -> None:
    notifier.ready()
    notifier.beat(100.0)
    systemd.heard()
    notifier.stopping(40.5)
    notifier.beat(102.0)
    assert systemd.heard() == [
        ["STOPPING=1", "STATUS=some state", "EXTEND_TIMEOUT_USEC=40500000"],
        ["WATCHDOG=1", "STATUS=some state"],
    ]
    notifier.close()
    notifier.beat(104.0)
    notifier.ready()
    assert systemd.heard() == []


@pytest.mark.parametrize(
    "watchdog",
    [{}, {"WATCHDOG_USEC": ""}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "4000000", "WATCHDOG_PID": "1"}],
    ids=["none", "empty", "not a number", "another process's"],
)
def test_without_a_watchdog_of_its_own_only_the_status_is_kept_up(
    systemd: NotifySocket, tmp_path: Path, watchdog: dict[str, str]
) -> None:
    notifier = Notifier(lambda: "s", {"NOTIFY_SOCKET": str(tmp_path / "notify")} | watchdog)
    notifier.ready()
    systemd.heard()
    for tick in range(100, 200):
        notifier.beat(float(tick))
    assert len(systemd.heard()) == 100 / STATUS_SECONDS
    notifier.close()


def test_a_watchdog_of_this_very_process_is_fed(systemd: NotifySocket, tmp_path: Path) -> None:
    own = {"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": str(os.getpid())}
    notifier = Notifier(lambda: "s", {"NOTIFY_SOCKET": str(tmp_path / "notify")} | own)
    notifier.ready()
    systemd.heard()
    for tick in range(100, 110):
        notifier.beat(float(tick))
    assert len(systemd.heard()) == 10
    notifier.close()


def test_an_abstract_address_begins_with_an_at_sign() -> None:
    name = f"ringcast-test-{os.getpid()}"
    systemd = NotifySocket(f"\0{name}")
    notifier = Notifier(lambda: "s", {"NOTIFY_SOCKET": f"@{name}"})
    notifier.ready()
    assert systemd.heard() == [["READY=1", "STATUS=s"]]
    notifier.close()
    systemd.socket.close()


@pytest.mark.parametrize("address", ["", "vsock:2:1234", "relative", "/nowhere/at/all", "/" + "x" * 200])
def test_an_address_that_is_of_no_use_breaks_nothing(address: str) -> None:
    notifier = Notifier(lambda: "s", {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000"})
    notifier.ready()
    for tick in range(10):
        notifier.beat(float(tick))
    notifier.stopping(1.0)
    notifier.close()


def test_what_a_full_queue_refused_is_said_with_the_next_beat(systemd: NotifySocket, notifier: Notifier) -> None:
    """The manager is busy: waiting for it would stop the loop, and a lost READY would be a start that never ends."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as others:
        others.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                others.sendto(b"STATUS=busy", systemd.socket.getsockname())
        notifier.ready()
        notifier.beat(100.0)
        assert all(said == ["STATUS=busy"] for said in systemd.heard())
    notifier.beat(100.25)
    notifier.beat(100.5)
    assert systemd.heard() == [["READY=1", "WATCHDOG=1", "STATUS=some state"]]
