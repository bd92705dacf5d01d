"""Streams on paths of their own: what an application offers beside the general endpoints.

Owns how such a stream is declared (path, channel, who is admitted and what it selects), and the look-up by path. Must
never know how a stream is opened: what comes out is what the general endpoints make of their parameters too
(handlers/subscribe.py), so limits, cursors and endings are the same.

Cost: a dict look-up per request for a stream, one regular expression each for paths with arguments.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from inspect import iscoroutinefunction

from pydantic import BaseModel

from handlers.paths import arguments_of, pattern_of
from server.auth import PARAMETER
from server.exchange import Request
from server.rights import Principal
from server.selection import Selection


@dataclass(slots=True)
class StreamCall:
    """A request for a stream: the arguments of its path and its parameters (the first of each name), decoded, and who
    is asking."""

    request: Request
    arguments: Mapping[str, str]
    parameters: Mapping[str, str]
    principal: Principal


@dataclass(slots=True)
class Admitted:
    """What the stream is. `principal` is whose rights it lives by: it ends when they do. `last`: so many events from
    before, for a client without a cursor. `greeting` and `look_again`: see server/opening.py."""

    selection: Selection
    principal: Principal
    last: int = 0
    greeting: Callable[[], bytes] | None = None
    look_again: Callable[[], None] | None = None


@dataclass(frozen=True)
class StreamRoute:
    """A stream. `path` has arguments in braces, each one segment. `admit` raises Refused: 404 for what is not there,
    204 (server.endings.FINISHED) for what is finished, 400 with the field for what is not valid. If it is a coroutine
    function the stream takes longer to open. Where only some calls take that, `admit` gives None for those and
    `admit_later` is asked.

    Who may watch is what the channel's policy says (`anonymous`, else a token that grants the channel), before anything
    else is looked at. `own_rules`: `admit` has rules of its own in its place.

    `token_parameter`: the name of the token in the query. `query` and `events` are for the description of the API.
    """

    path: str
    channel: str
    admit: Callable[[StreamCall], Admitted | Awaitable[Admitted] | None]
    summary: str
    query: type[BaseModel] | None = None
    events: Mapping[str, str] = field(default_factory=dict)
    token_parameter: str = PARAMETER
    admit_later: Callable[[StreamCall], Awaitable[Admitted]] | None = None
    own_rules: bool = False

    @cached_property
    def waits(self) -> bool:
        """True if admission takes waiting, which the front door does not do."""
        return iscoroutinefunction(self.admit)

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """What paths of this route look like."""
        return pattern_of(self.path)


class Streams:
    """The routes of all applications."""

    def __init__(self, routes: Sequence[StreamRoute] = ()) -> None:
        self.routes = tuple(routes)
        self._fixed = {route.path: route for route in routes if "{" not in route.path}
        self._others = [route for route in routes if "{" in route.path]

    def find(self, path: str) -> tuple[StreamRoute, Mapping[str, str]] | None:
        """The route of a path and the path's arguments, decoded. One that is not UTF-8 belongs to nothing."""
        route = self._fixed.get(path)
        if route is not None:
            return route, {}
        for route in self._others:
            arguments = arguments_of(route.pattern, path)
            if arguments is not None:
                return route, arguments
        return None
