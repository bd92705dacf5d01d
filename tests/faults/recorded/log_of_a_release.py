"""Records the log of an earlier release, for test_mixed_versions.py: see README.md beside this.

    python -m tests.faults.recorded.log_of_a_release TREE NAME

Owns what is published and asked while it is recorded, and the text form of what the release then has in Redis or in its
file. Must never know of today's server: TREE is a folder with the source of that release, and is what runs. Cost: some
seconds, once for each form that a log has had.
"""

from __future__ import annotations

import http.client
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from redis import Redis

from tests.harness.process import TOKEN_SECRET, free_port, wait_until
from tests.harness.redis import RedisServer
from tests.harness.stream import Stream
from tests.threats.tokens import bearer, signed

HERE = Path(__file__).parent
PATH = "/channels/main/events"
KEY = "a-key-from-then"
RETAINED = 30
KEYED: dict[str, Any] = {"topic": "t", "data": "published under a key", "id": "keyed"}
PUBLISHED: list[list[dict[str, Any]]] = [
    *[[{"topic": "old", "data": f"soon dropped {number}", "id": "twice"}] for number in range(RETAINED)],
    [{"topic": "t", "data": "plain"}],
    [{"topics": ["t", "https://example.com/u?a=b&c=/d", "tenants/ü"], "data": "three topics"}],
    [{"topic": "t", "data": "", "type": "empty"}],
    [{"topic": "t", "data": "two\nlines, \u2028 ü 🎈 \\ \" </script>", "type": "texts", "retry": 1500}],
    [{"topic": "t", "data": "for few", "private": True}],
    [{"topic": "t", "data": "own", "id": "own-1"}],
    [{"topic": "t", "data": "own again", "id": "own-1"}],
    [{"topic": "t", "data": f"of a batch {number}", "id": f"batch {number}"} for number in range(3)],
    [{"topic": "t", "data": "x" * 5000, "type": "large"}],
    *[[{"topic": "old", "data": f"later {number}"}] for number in range(10)],
]  # fmt: skip


def post(port: int, events: list[dict[str, Any]], key: str | None = None) -> list[str]:
    """Publish these, all or none; their ids."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    headers = {"Authorization": bearer(signed()), "Content-Type": "application/x-ndjson"}
    connection.request(
        "POST", PATH, "\n".join(map(json.dumps, events)), headers | ({"Idempotency-Key": key} if key else {})
    )
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    assert answer.status == 200, body
    ids: list[str] = json.loads(body)["ids"]
    return ids


def seen_of(port: int) -> dict[str, Any]:
    """What a reader of everything gets from then on while all is published: the cursor it begins with, and blocks."""
    with Stream(port, PATH, Authorization=bearer(signed())) as stream:
        first = stream.next_event()
        assert first.type == "hello"
        post(port, [KEYED], KEY)
        blocks = [stream.next_event()]
        for events in PUBLISHED:
            post(port, events)
            blocks += [stream.next_event() for _ in events]
    return {"hello": first.id, "events": [block.fields for block in blocks]}


def served(tree: Path, relay: str, folder: Path) -> dict[str, Any]:
    """Run the release, and say what its reader saw."""
    port = free_port()
    env = {name: value for name, value in os.environ.items() if not name.startswith("RINGCAST_")}
    settings = {"PORT": port, "RELAY": relay, "JWT_SECRET": TOKEN_SECRET, "HOST_SOURCE": "false"}
    settings |= {"RETAIN_EVENTS": RETAINED, "DRAIN_SECONDS": 0, "IDEMPOTENCY_SECONDS": 3600}
    if (tree / "apps").is_dir():
        settings["APPS"] = "none"
    env |= {f"RINGCAST_{name}": str(value) for name, value in settings.items()} | {"PYTHONPATH": str(tree)}
    with subprocess.Popen([sys.executable, "-m", "server", "serve"], cwd=folder, env=env) as server:
        try:
            wait_until(lambda: _serves(port), 20, "the server")
            return seen_of(port)
        finally:
            server.terminate()


def _serves(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/ready")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def keys_of(redis: RedisServer) -> dict[str, Any]:
    """The keys of the channel as text: hashes, streams, sorted sets, and texts that lapse."""
    with Redis(port=redis.port, decode_responses=True, protocol=2) as client:
        found: dict[str, Any] = {}
        for key in sorted(client.keys("{ringcast:main}:*")):
            kind = str(client.type(key))
            read: dict[str, Any] = {
                "hash": client.hgetall,
                "stream": client.xrange,
                "string": client.get,
                "zset": lambda key: client.zrange(key, 0, -1),
            }
            found[key] = {"type": kind, "value": read[kind](key)}
        return found


def record(tree: Path, name: str) -> None:
    """Write `redis-NAME.json` and `sqlite-NAME.json`."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        redis = RedisServer(folder).start()
        try:
            _write(f"redis-{name}.json", served(tree, redis.url, folder) | {"keys": keys_of(redis)})
        finally:
            redis.stop()
        path = folder / "log.db"
        seen = served(tree, f"sqlite:{path}", folder)
        with sqlite3.connect(path) as connection:
            pragmas = ("auto_vacuum", "application_id", "user_version")
            settings = [f"PRAGMA {name} = {connection.execute(f'PRAGMA {name}').fetchone()[0]};" for name in pragmas]
            lines = [line for line in connection.iterdump() if "sqlite_stat" not in line]
        connection.close()
        _write(f"sqlite-{name}.json", seen | {"sql": [*settings, *lines]})


def _write(name: str, recorded: dict[str, Any]) -> None:
    """As text that can be compared: an event, a key or a statement is a line."""
    lines = []
    for part, value in recorded.items():
        if isinstance(value, list):
            written = "[\n" + ",\n".join(_text(item) for item in value) + "]"
        elif isinstance(value, dict):
            written = "{\n" + ",\n".join(f"{_text(key)}: {_text(item)}" for key, item in value.items()) + "}"
        else:
            written = _text(value)
        lines.append(f"{_text(part)}: {written}")
    (HERE / name).write_text("{" + ",\n".join(lines) + "}\n")


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    record(Path(sys.argv[1]).resolve(), sys.argv[2])
