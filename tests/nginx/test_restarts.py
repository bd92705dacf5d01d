"""nginx itself goes away under live streams: killed, stopped, restarted, or replaced by another binary while it serves.

As a service it is a daemon, and only as one does it obey the signal for a new binary. All come back, and nothing is
lost.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.browser.listener import OPEN, Source
from tests.faults.witnesses import Scene
from tests.harness.process import wait_until
from tests.nginx import test_chromium as in_a_browser
from tests.nginx.conftest import StartSocketNode, address
from tests.nginx.proxy import WORKERS, Nginx
from tests.nginx.test_reload import UNLIMITED, shutdown_ms

HUB = "/.well-known/mercure?topic=a"
page = in_a_browser.page


class Daemon(Nginx):
    """nginx as a service has it: known by its file, a child of nobody here. There may be two masters for a while."""

    @property
    def file(self) -> Path:
        return self.folder / "nginx.pid"

    def masters(self) -> list[int]:
        """The ids of those that live."""
        files = (self.file, self.folder / "nginx.pid.oldbin")
        return [one for one in map(named_by, files) if alive(one)]

    def start(self) -> Daemon:
        """Start it and wait until it accepts."""
        # With its path: the master looks for a new binary by the name that it was started by.
        program = shutil.which("nginx") or "nginx"
        subprocess.run(
            [program, *self._command()[1:]], check=True, timeout=20, stdin=subprocess.DEVNULL, capture_output=True
        )
        wait_until(self._accepts, 20, f"nginx (see {self.folder})")
        return self

    @property
    def master(self) -> int:
        """The id of the one that the file names; 0 while it names none."""
        return named_by(self.file)

    def workers(self) -> set[int]:
        return workers_of(self.master)

    def _accepts(self) -> bool:
        if len(self.workers()) != WORKERS:
            return False
        with contextlib.suppress(OSError):
            self.connect(1).close()
            return True
        return False

    def kill(self) -> None:
        """SIGKILL to the master and its workers, as when the machine's memory ran out or by hand."""
        master, workers = self.master, self.workers()
        for one in (master, *workers):
            psutil.Process(one).kill()
        wait_until(lambda: not any(alive(one) for one in (master, *workers)), 10, "nginx dead")

    def end(self, number: int) -> None:
        """The signal to the master, and wait until it is gone with all of its workers."""
        master, workers = self.master, self.workers()
        psutil.Process(master).send_signal(number)
        wait_until(lambda: not any(alive(one) for one in (master, *workers)), 20, "nginx gone")

    def renew(self) -> int:
        """SIGUSR2: another master, from the binary as it is now on the disk, beside the old one; that one's id."""
        old = self.master
        psutil.Process(old).send_signal(signal.SIGUSR2)
        wait_until(lambda: self.master not in (0, old), 20, "a new master")
        wait_until(lambda: len(self.workers()) == WORKERS, 20, "its workers")
        return old


def named_by(file: Path) -> int:
    """The id in it; 0 if it is not there, or not written yet."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        return int(file.read_text())
    return 0


def alive(process: int) -> bool:
    """False for one that waits to be buried, too: whose child it is does not matter here."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process and psutil.Process(process).status() != psutil.STATUS_ZOMBIE)
    return False


def workers_of(master: int) -> set[int]:
    """Without another master, which is its child as well."""
    found = set()
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(master).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if alive(child.pid) and "worker process" in " ".join(child.cmdline()):
                    found.add(child.pid)
    return found


StartDaemon = Callable[[], Daemon]


@pytest.fixture
def daemon(socket_node: StartSocketNode, tmp_path: Path, seed: int) -> Iterator[StartDaemon]:
    """`daemon()`: before one node. Streams that a stop or a new binary finds have a second at most."""
    started: list[Daemon] = []

    def start() -> Daemon:
        soon = shutdown_ms(random.Random(seed).randrange(300, 1000))
        started.append(Daemon(tmp_path, [address(socket_node())], UNLIMITED | soon))
        return started[-1].start()

    yield start
    for one in started:
        masters = one.masters()
        for master in masters:
            psutil.Process(master).terminate()
        wait_until(lambda masters=masters: not any(alive(master) for master in masters), 20, "nginx gone")  # type: ignore[misc]


@pytest.mark.fault
def test_an_nginx_that_is_killed_and_started_again_loses_nothing(daemon: StartDaemon, seed: int) -> None:
    """FLT-30: master and workers by SIGKILL; every stream is cut, and resumes as soon as somebody listens again."""
    rng = random.Random(seed)
    front = daemon()
    with Scene(front.plain_port) as scene:
        for _ in range(3):
            scene.wait_for(rng.randrange(20, 60))
            front.kill()
            front.start()
            scene.healed()
        scene.wait_for(30)
    assert scene.history.problems() == []
    assert all(subscriber.connections >= 4 for subscriber in scene.subscribers)


@pytest.mark.fault
def test_a_worker_that_is_killed_is_replaced_and_its_streams_come_back(daemon: StartDaemon, seed: int) -> None:
    """FLT-30: the master stays, and so does the other worker."""
    rng = random.Random(seed)
    front = daemon()
    with Scene(front.plain_port) as scene:
        for _ in range(3):
            scene.wait_for(rng.randrange(20, 60))
            master, before = front.master, front.workers()
            victim = rng.choice(sorted(before))
            psutil.Process(victim).kill()
            wait_until(lambda before=before: len(front.workers() - before) == 1, 10, "another worker")  # type: ignore[misc]
            scene.healed()
            assert front.master == master
        scene.wait_for(30)
    assert scene.history.problems() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT], ids=["at once", "gracefully"])
@pytest.mark.fault
def test_an_nginx_that_is_stopped_and_started_loses_nothing(daemon: StartDaemon, number: int, seed: int) -> None:
    """FLT-30: as a restart of the service does it. Gracefully, nobody is let in while the streams that are there have
    their time; then it is as with the other.
    """
    rng = random.Random(seed)
    front = daemon()
    with Scene(front.plain_port) as scene:
        for _ in range(2):
            scene.wait_for(rng.randrange(20, 60))
            front.end(number)
            front.start()
            scene.healed()
        scene.wait_for(30)
    assert scene.history.problems() == []
    assert all(subscriber.connections >= 3 for subscriber in scene.subscribers)


@pytest.mark.fault
def test_a_new_binary_takes_over_while_somebody_always_listens(daemon: StartDaemon, seed: int) -> None:
    """FLT-11: USR2, WINCH, QUIT. The streams of the old workers have the time of a reload; no newcomer and no publisher
    is ever refused.
    """
    rng = random.Random(seed)
    front = daemon()
    with Scene(front.plain_port) as scene:
        for _ in range(2):
            scene.wait_for(rng.randrange(20, 60))
            old = front.renew()
            admitted(front)
            leaving = workers_of(old)
            assert len(leaving) == WORKERS
            scene.wait_for(rng.randrange(1, 30))
            psutil.Process(old).send_signal(signal.SIGWINCH)
            wait_until(lambda leaving=leaving: not any(alive(one) for one in leaving), 10, "the old workers gone")  # type: ignore[misc]
            admitted(front)
            psutil.Process(old).send_signal(signal.SIGQUIT)
            wait_until(lambda old=old: not alive(old), 10, "the old master gone")  # type: ignore[misc]
            admitted(front)
            scene.healed()
        scene.wait_for(30)
    assert scene.history.problems() == []
    assert all(subscriber.connections >= 3 for subscriber in scene.subscribers)
    assert "fail" not in scene.history.outcomes.values()


@pytest.mark.fault
def test_a_new_binary_that_is_no_good_is_called_off(daemon: StartDaemon, seed: int) -> None:
    """FLT-11: QUIT to the new master and HUP to the old one, which had let its workers go: it has new ones, serves on,
    and has its file back.
    """
    rng = random.Random(seed)
    front = daemon()
    with Scene(front.plain_port) as scene:
        scene.wait_for(rng.randrange(20, 60))
        old = front.renew()
        psutil.Process(old).send_signal(signal.SIGWINCH)
        scene.wait_for(rng.randrange(1, 60))
        psutil.Process(old).send_signal(signal.SIGHUP)
        wait_until(lambda: len(workers_of(old)) >= WORKERS, 10, "workers of the old master")
        new = front.master
        psutil.Process(new).send_signal(signal.SIGQUIT)
        wait_until(lambda: front.master == old and not alive(new), 20, "the old one alone")
        scene.healed()
        admitted(front)
        scene.wait_for(30)
    assert scene.history.problems() == []
    assert "fail" not in scene.history.outcomes.values()


def admitted(front: Nginx) -> None:
    """Somebody new gets a stream."""
    with front.stream(HUB) as stream:
        assert stream.next_event().type == "hello"


@pytest.mark.fault
def test_a_browser_comes_back_from_an_nginx_that_was_killed_restarted_or_replaced(
    daemon: StartDaemon, page: in_a_browser.OpenPage, seed: int
) -> None:
    """FLT-11, FLT-30: a native EventSource is never closed for good: a refused connection is tried again like one that
    broke. What was published meanwhile is there.
    """
    front = daemon()
    ends: list[Callable[[], None]] = [front.kill, lambda: front.end(signal.SIGTERM), lambda: front.end(signal.SIGQUIT)]
    random.Random(seed).shuffle(ends)
    listener = Source(page(front.url), HUB, "gap")
    listener.wait_for("hello")
    ids = [front.publish("a", "before")]
    for number, end in enumerate(ends, 2):
        end()
        listener.wait_for("(reconnecting)", number)  # refused at least once
        front.start()
        ids.append(front.publish("a", f"behind end {number}"))
        listener.wait_id(ids[-1])
    old = front.renew()
    ids.append(front.publish("a", "two masters"))
    psutil.Process(old).send_signal(signal.SIGQUIT)
    wait_until(lambda: not alive(old), 10, "the old master gone")
    ids.append(front.publish("a", "the new one alone"))
    listener.wait_id(ids[-1])
    listener.wait_state(OPEN)
    assert [event_id for _, _, event_id in listener.messages] == ids
    assert not {"gap", "(closed)"} & set(listener.kinds)
