"""The hub: from a valid event to the log, and from the log to the channels of this node.

Owns the set of channels and the way of an event: publish, relay, deliver, channel, feeds, broadcaster. Must never know
of HTTP, tokens or sockets.

Invariants: an event that was not appended is delivered to nobody; entries reach a channel in the order of the log, on
the event loop. Cost: a publish is one call into the relay; delivery is one index look-up per event, then the
broadcaster's work per reader.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Sequence

from server.broadcaster import Broadcaster
from server.channel import Channel, Floors, Policy, Start
from server.event import Event, InvalidEvent
from server.frames import encode
from server.ids import parse_id
from server.log import Log
from server.logs import get_logger
from server.relay.memory import MemoryRelay
from server.relay.positions import microseconds, present_behind
from server.relay.protocol import Appended, Entry, Key, LogState, Relay, RelayUnavailable
from server.selection import Selection
from server.shards import Shards, shards_for

CHANNEL_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
ROOM_SECONDS = 5.0  # how long a publish waits for readers' unsent bytes to go down before it is refused
MAX_FIELD_BYTES = 1_024  # id, type, retry and their names are at the most this
MAX_GROWTH = 7  # a byte of data is at the most this many on the wire ("\n" becomes "\ndata: ")

Listener = Callable[[Sequence[Entry]], None]
Missed = Callable[[], None]

log = get_logger("hub")


class Hub:
    """See the module's head."""

    def __init__(
        self,
        relay: Relay,
        broadcaster: Broadcaster,
        policy_of: Callable[[str], Policy],
        *,
        max_frame_bytes: int,
        max_channels: int,
    ) -> None:
        self.relay = relay
        self.channels: dict[str, Channel] = {}
        self._broadcaster = broadcaster
        self._policy_of = policy_of
        self._max_frame_bytes = max_frame_bytes
        self._max_channels = max_channels
        self._opening: dict[str, asyncio.Task[Channel]] = {}
        self._listeners: dict[str, list[Listener]] = {}
        self._missed: dict[str, list[Missed]] = {}
        self._beginning: dict[str, asyncio.Task[None]] = {}
        self._wanted: dict[str, set[int]] = {}
        # The memory relay appends without waiting: publishes then need no coroutine.
        self._append_now = relay.append_now if isinstance(relay, MemoryRelay) else None

    def listen(self, channel: str, listener: Listener, missed: Missed | None = None) -> None:
        """Call `listener` with the entries of a channel as they are delivered on this node, before its readers get
        them. Of a split channel only followed shards come. `missed` is called where some may never come, before readers
        are told of the gap: what a listener knows from entries is doubtful then."""
        self._listeners.setdefault(channel, []).append(listener)
        if missed is not None:
            self._missed.setdefault(channel, []).append(missed)

    async def start(self, names: Sequence[str]) -> None:
        """Open the relay and the channels that are always there. Raises RelayUnavailable."""
        await self.relay.start(self._deliver, self._turn)
        for name in names:
            await self.open(name)

    async def open(self, name: str) -> Channel:
        """The channel, opened if it was not. Raises KeyError if there may be no more, or the name is not one."""
        channel = self.channels.get(name)
        if channel is not None:
            return channel
        task = self._opening.get(name)
        if task is None:
            if not self.may_open(name):
                raise KeyError(name)
            task = self._opening[name] = asyncio.get_running_loop().create_task(self._open(name))
            task.add_done_callback(lambda _: self._opening.pop(name, None))
        return await asyncio.shield(task)

    def may_open(self, name: str) -> bool:
        """True if a channel of this name could still be opened."""
        room = name in self._opening or len(self.channels) + len(self._opening) < self._max_channels
        return CHANNEL_NAME.fullmatch(name) is not None and room

    async def _open(self, name: str) -> Channel:
        policy = self._policy_of(name)
        state = await self.relay.open(name, policy.retain, policy.ring.events, policy.ring.bytes)
        history = Log(policy.ring, state.floor)
        for entry in state.recent:
            history.append(entry)
        if state.recent:  # older ones may be in the relay's log, and are asked for there
            history.floor = max(history.floor, state.recent[0].position - 1)
        channel = self.channels[name] = Channel(name, policy, state.epoch, history, state.shards)
        log.info("channel_opened", channel=name, epoch=state.epoch, entries=len(history), shards=state.shards)
        return channel

    # --- the way of an event
    # -------------------------------------------------------------------------------------------------

    def publish(
        self, channel: Channel, events: Sequence[Event], key: Key | None = None
    ) -> Appended | Awaitable[Appended]:
        """Append events to a channel, all or none: at once where the relay allows it, else by an awaitable.

        Raises (either way) InvalidEvent for an event that is too large on the wire, RelayUnavailable, KeyConflict.
        """
        for event in events:
            self._check_size(event)
        if self._append_now is not None and not self._broadcaster.backlogged:
            return self._append_now(channel.name, events, key)
        return self._append(channel.name, events, key)

    async def _append(self, name: str, events: Sequence[Event], key: Key | None) -> Appended:
        # Readers that wait for the server's turn, not their own: the publisher pays, nobody loses events.
        if self._broadcaster.backlogged and not await self._broadcaster.room(ROOM_SECONDS):
            raise RelayUnavailable("readers' unsent events fill the backlog")
        return await self.relay.append(name, events, key)

    def _check_size(self, event: Event) -> None:
        if len(event.data) * 4 * MAX_GROWTH + MAX_FIELD_BYTES < self._max_frame_bytes:
            return
        if len(encode(event, event.id or "x" * 20)) > self._max_frame_bytes:
            raise InvalidEvent(
                "data", f"makes an event of more than {self._max_frame_bytes} bytes on the wire", too_large=True
            )

    def _deliver(self, name: str, entries: Sequence[Entry]) -> None:
        channel = self.channels.get(name)
        if channel is not None:
            for listener in self._listeners.get(name, ()):
                self._tell(listener, entries)
            self._broadcaster.publish(channel.accept(entries, time.monotonic()))

    @staticmethod
    def _tell(listener: Callable[..., None], *what: Sequence[Entry]) -> None:
        try:
            listener(*what)
        except Exception:  # readers are not to suffer from it
            log.exception("listener_failed")

    def _turn(self, name: str, reason: str, position: int, state: LogState) -> None:
        """The log is not what it was: listeners are told so, and readers before they get anything else; and all go on
        from where the log is now."""
        channel = self.channels.get(name)
        if channel is None:
            return
        for missed in self._missed.get(name, ()):
            self._tell(missed)
        if not state.missing:  # else of the other shards nothing is
            history = Log(channel.policy.ring, max(state.floor, position))
            for entry in state.recent:
                history.append(entry)
            self._broadcaster.end_replays(channel)  # they would go on in a log that is no more
            if state.epoch != channel.epoch:
                self._broadcaster.publish(channel.turn(state.epoch, history, reason, position))
                return
            channel.log = history
        channel.lose(state.missing, reason, position, present_behind(position, microseconds(time.time())))

    # --- the way of a reader
    # -------------------------------------------------------------------------------------------------

    def locate(self, channel: Channel, cursor: str | None, last: int, selection: Selection) -> Start | None:
        """Where a stream starts; None if the relay has to be asked (`find`)."""
        shards = shards_for(selection, channel.following.count)
        if channel.following.missing(shards):
            return None
        if cursor is None:
            return Start(channel.log.head, last=last) if last else Start(None)
        start = channel.locate(cursor, selection, self._floors(channel, shards), self.relay.mark(channel.name))
        if self.relay.shared and start is not None and start.gap in ("future", "epoch", "unknown"):
            return None  # another node may be ahead of this one
        return start

    async def find(self, channel: Channel, cursor: str | None, last: int, selection: Selection) -> Start:
        """Where a stream starts that needs shards which are not followed yet, or whose cursor this node does not know:
        one of another node that is ahead, or a publisher's own id that memory does not hold. Raises
        RelayUnavailable."""
        shards = shards_for(selection, channel.following.count)
        channel.following.enter(shards)  # they are not given up before there is a feed that needs them
        try:
            while missing := channel.following.missing(shards):
                await self._follow(channel, missing)
            start = self.locate(channel, cursor, last, selection)
            return start or await self._find_cursor(channel, cursor or "", shards, selection)
        finally:
            channel.following.depart(shards)

    async def _find_cursor(self, channel: Channel, cursor: str, shards: Shards, selection: Selection) -> Start:
        parsed = parse_id(cursor)
        if parsed is not None:
            await self.relay.reach(channel.name, *parsed)
            start = channel.locate(cursor, selection, self._floors(channel, shards), self.relay.mark(channel.name))
            assert start is not None
            return start
        for entry in await self.relay.find(channel.name, cursor):
            if selection.may_read(entry.event):
                if self.relay.shared:  # it may not have been delivered here yet, and would come once more
                    await self.relay.reach(channel.name, channel.epoch, entry.position)
                return Start(entry.position, found=True)
        return channel.lost(self._floors(channel, shards))

    def _floors(self, channel: Channel, shards: Shards) -> Floors:
        relay = self.relay
        floor = relay.floor(channel.name, shards)
        return Floors(floor, relay.lowest_floor(channel.name, shards) if channel.following.count > 1 else floor)

    async def _follow(self, channel: Channel, shards: Sequence[int]) -> None:
        """Follow shards of a channel; one call at a time, with all that is wanted by then. Some of these may be
        followed afterwards, not all."""
        self._wanted.setdefault(channel.name, set()).update(shards)
        task = self._beginning.get(channel.name)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._begin_to_follow(channel))
            self._beginning[channel.name] = task
            task.add_done_callback(lambda _: self._beginning.pop(channel.name))
        await asyncio.shield(task)

    async def _begin_to_follow(self, channel: Channel) -> None:
        assert self.relay.splitter is not None
        await asyncio.sleep(0)  # those who come in the same turn go along
        shards = channel.following.missing(tuple(sorted(self._wanted.pop(channel.name))))
        ring, count = channel.policy.ring, channel.following.count
        if shards:
            recent, recent_bytes = max(1, ring.events // count), max(1, ring.bytes // count)
            followed = await self.relay.splitter.follow(channel.name, shards, recent, recent_bytes)
            channel.include(followed, time.monotonic())
            log.info("shards_followed", channel=channel.name, shards=shards)

    def expire(self) -> None:
        """Called now and then: drop what is over age from memory, and shards that nobody reads; tell of holes."""
        now = time.time()
        for channel in self.channels.values():
            channel.log.expire(now)
            if channel.holes:
                self._broadcaster.publish(channel.tell_all(self.relay.mark(channel.name)))
            given_up = channel.following.give_up(time.monotonic())
            if given_up and self.relay.splitter is not None:
                self.relay.splitter.unfollow(channel.name, given_up)
                log.info("shards_given_up", channel=channel.name, shards=given_up)
