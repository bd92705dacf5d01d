"""Rights: who is asking, and what of a channel they may publish and read.

Owns the two values and how a token's claims become them. Must never know of keys, signatures, requests or clocks. A
claim that is not of the described form spoils the whole token: a half-understood grant is a wrong grant.

Invariants: a `Principal` exists only for verified claims, or as one of the two constants. At most 100 selectors a
token.
Cost: one Principal per distinct token, shared by its connections; asking is one match per selector and topic.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from server.event import is_safe
from server.revocations import HOLDERS, mark_of
from server.selectors import ANY, InvalidSelector, Selector, parse_selector

MAIN_CHANNEL = "main"
MAX_TOKEN_SELECTORS = 100
MAX_SUBJECT_CHARACTERS = 256

_CHANNEL = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_OPERATE = "operate"
# Some issuers (Auth0) only let claims through whose name is a URL; where both are, this one counts, as in Mercure hubs.
_NAMESPACED = "https://mercure.rocks/"


class InvalidClaims(ValueError):
    """A claim is not of the described form. `reason` is for the log; it quotes nothing."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Rights:
    """What one channel grants: selectors of topics to publish to, and of private events to read."""

    publish: tuple[Selector, ...] = ()
    subscribe: tuple[Selector, ...] = ()

    def may_publish(self, topics: Sequence[str]) -> bool:
        """True if every topic is granted. An event without topics reaches all who select everything: it needs `*`."""
        if any(grant.any for grant in self.publish):
            return True
        return bool(topics) and all(any(grant.matches(topic) for grant in self.publish) for topic in topics)


NOTHING = Rights()
EVERYTHING = Rights((ANY,), (ANY,))


@dataclass(frozen=True, slots=True, eq=False)
class Principal:
    """Who is asking. `subject` is the token's `sub` or ""; `expires` is when its rights end, in unix seconds.

    `operate` opens the statistics; `authenticated` is False only for who brought no token. `scope` tells publishers
    apart: all tokens of one subject are one publisher, and every token without a subject is one of its own. `marks` are
    what it can be revoked by (server/revocations.py). `tenant` and `company` are what the token's claims of these names
    say, "" if nothing: for applications whose data belong to one.
    """

    subject: str = ""
    expires: float | None = None
    operate: bool = False
    authenticated: bool = True
    _channels: Mapping[str, Rights] = field(default_factory=dict, repr=False)
    _other_channels: Rights = field(default=NOTHING, repr=False)
    scope: str = field(default="", repr=False)
    marks: tuple[str, ...] = field(default=(), repr=False)
    tenant: str = ""
    company: str = ""

    def rights(self, channel: str) -> Rights:
        """The rights on one channel."""
        return self._channels.get(channel, self._other_channels)


ANONYMOUS = Principal(authenticated=False)
DEVELOPMENT = Principal(operate=True, _other_channels=EVERYTHING)


def principal_of(claims: Mapping[str, object], expires: float | None, fingerprint: str) -> Principal:
    """The principal that verified claims describe; `fingerprint` stands for their token. Raises InvalidClaims."""
    subject = claims.get("sub", "")
    if not isinstance(subject, str) or len(subject) > MAX_SUBJECT_CHARACTERS or not is_safe(subject):
        raise InvalidClaims("sub")
    mercure = _object(claims, _NAMESPACED if _NAMESPACED in claims else "mercure")
    ringcast = _object(claims, "ringcast")
    operate = ringcast.get(_OPERATE, False)
    if not isinstance(operate, bool):
        raise InvalidClaims("ringcast.operate")
    channels = {name: _rights(_object(ringcast, name)) for name in _channel_names(ringcast)}
    own, main = _rights(mercure), channels.get(MAIN_CHANNEL, NOTHING)
    channels[MAIN_CHANNEL] = Rights(own.publish + main.publish, own.subscribe + main.subscribe)
    if sum(len(rights.publish) + len(rights.subscribe) for rights in channels.values()) > MAX_TOKEN_SELECTORS:
        raise InvalidClaims("too many selectors")
    # The words in front keep a subject from passing for a fingerprint.
    scope = f"sub {subject}" if subject else f"token {fingerprint}"
    return Principal(
        subject,
        expires,
        operate,
        True,
        channels,
        scope=scope,
        marks=_marks(claims),
        tenant=_name(claims, "tenant"),
        company=_name(claims, "company"),
    )


def _name(claims: Mapping[str, object], claim: str) -> str:
    """A claim that is a short text or a whole number; anything else names nothing."""
    value = claims.get(claim)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return value if isinstance(value, str) and len(value) <= MAX_SUBJECT_CHARACTERS and is_safe(value) else ""


def _marks(claims: Mapping[str, object]) -> tuple[str, ...]:
    """What the token can be revoked by: its id, its subject, its tenant."""
    marks = []
    for kind, claim in zip(HOLDERS, ("jti", "sub", "tenant"), strict=True):
        value = _name(claims, claim)
        if value:
            with suppress(ValueError):  # who issues tokens without a name that can be one cannot revoke by it
                marks.append(mark_of(kind, value))
    return tuple(marks)


def _channel_names(ringcast: Mapping[str, object]) -> Iterator[str]:
    for name in ringcast:
        if name == _OPERATE:
            continue
        if not _CHANNEL.fullmatch(name):
            raise InvalidClaims("ringcast: name of a channel")
        yield name


def _object(claims: Mapping[str, object], name: str) -> Mapping[str, object]:
    value = claims.get(name, {})
    if not isinstance(value, dict):
        raise InvalidClaims("grants that are not an object")
    return value


def _rights(grants: Mapping[str, object]) -> Rights:
    return Rights(_selectors(grants, "publish"), _selectors(grants, "subscribe"))


def _selectors(grants: Mapping[str, object], name: str) -> tuple[Selector, ...]:
    texts = grants.get(name)
    if texts is None:
        return ()  # null too: clients in Go write it for an empty list
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise InvalidClaims(f"{name} is not a list of strings")
    if len(texts) > MAX_TOKEN_SELECTORS:
        raise InvalidClaims("too many selectors")
    try:
        return tuple(parse_selector(text) for text in texts)
    except InvalidSelector:
        raise InvalidClaims(f"{name} holds an invalid selector") from None
