"""Redis that writes to its disk once a second, and a power cut: what is lost, and that it is told of."""

from __future__ import annotations

import random
import re
import time
from pathlib import Path

from redis import Redis

from server.ids import parse_id
from tests.faults.test_redis_faults import everybody_told, gap_reasons, over_redis
from tests.faults.witnesses import Scene
from tests.harness.process import wait_until

EVERY_SECOND = {"appendonly": "yes", "appendfsync": "everysec", "aof_timestamp_enabled": "yes"}
LOST_SECONDS = 1.0  # of what is acknowledged before the cut is not on the disk


def cut_off(folder: Path, since: float) -> None:
    """Leave the append-only file as it is on a disk that has got nothing since then (unix seconds)."""
    newest = max((folder / "appendonlydir").glob("*.incr.aof"), key=lambda path: path.stat().st_size)
    marks = [mark for mark in re.finditer(rb"#TS:(\d+)\r\n", newest.read_bytes()) if int(mark[1]) >= since]
    with newest.open("r+b") as file:
        file.truncate(marks[0].start())


def test_a_power_cut_loses_two_seconds_at_most_and_everybody_is_told(tmp_path: Path, seed: int) -> None:
    """FLT-02, appendfsync everysec: what was acknowledged in the last second or two is lost, and nothing before it;
    there is a new epoch, and a gap for each."""
    rng = random.Random(seed)
    with over_redis(tmp_path, EVERY_SECOND) as one, Scene(*one.ports) as scene:
        scene.wait_for(30)
        time.sleep(2 * LOST_SECONDS + rng.uniform(0, 1))  # what is older than the cut can take is on the disk
        scene.wait_for(rng.randrange(10, 40))
        one.redis.kill()
        cut = time.time()
        seen = [parse_id(entry.id) for log in scene.history.seen.values() for entry in log if not entry.gap]
        before = {position for _, position in filter(None, seen)}
        cut_off(one.redis.folder, cut - LOST_SECONDS)
        one.redis.start()
        scene.healed()
        with Redis(port=one.redis.port) as client:
            kept = {int(entry.split(b"-")[0]) for entry, _ in client.xrange("{ringcast:main}:events")}
        lost = before - kept
        assert lost
        assert max(before & kept) < min(lost)
        assert cut - min(lost) / 1e6 <= 2 * LOST_SECONDS
        wait_until(lambda: everybody_told(scene), 20, "gaps")
        one.wait_ready(True)
        scene.wait_for(30)
    assert scene.history.problems(needless_gaps=True) == []
    assert gap_reasons(scene) == {"epoch"}
