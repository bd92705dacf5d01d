"""A process that publishes to a log until it is killed, and tells on its output what was acknowledged.

One line per thing that a client could know, written at once: `ack KEY ID ID …` after an append returned, `mark
POSITION` after a cursor was given out. Run as `python -m tests.server.relay.appender PATH ROUND`.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys

from server.event import Event
from server.relay.protocol import Key, Retention
from server.relay.sqlite import SqliteRelay

PUBLISHERS = 4


def events_of(name: str) -> list[Event]:
    """The events of one publish; their data tells which publish they belong to, and how many there are."""
    chance = random.Random(name)
    count = chance.choice((1, 1, 1, 2, 3, 40))
    size = chance.choice((10, 10, 200, 9000))
    own = f"own-{name}" if chance.random() < 0.2 else None
    return [Event(topics=("t",), data=f"{name}/{number}/{count}/" + "x" * size, id=own) for number in range(count)]


def key_of(name: str) -> Key | None:
    """Every second publish has a key."""
    return Key("publisher", name, b"digest") if random.Random(name + "key").random() < 0.5 else None


def tell(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


async def publish(relay: SqliteRelay, number: str) -> None:
    for turn in range(1_000_000):
        name = f"{number}.{turn}"
        appended = await relay.append("main", events_of(name), key_of(name))
        tell("ack", name, *appended.ids)


async def main(path: str, number: str) -> None:
    relay = SqliteRelay(path, "NORMAL", 3600, 100_000)
    await relay.start(lambda channel, entries: None, lambda *turn: None)
    await relay.open("main", Retention(0, 0, 0), 0)
    publishers = [asyncio.create_task(publish(relay, f"{number}.{index}")) for index in range(PUBLISHERS)]
    while not publishers[0].done():
        tell("mark", relay.mark("main"))
        await asyncio.sleep(0.002)  # its script: a cursor now and then, until it is killed


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
