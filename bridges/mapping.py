"""Mappings: from a message of another system to events of a channel, as the settings say.

Owns what a template's places mean and what becomes of a message that does not fit. Pure: touches no socket and no
clock. A mapping says by templates (config/templates.py) which channel, topics, type, data and idempotency key a message
has; what templates can't say, a named Python function does. Nothing that came with a message is ever evaluated.

Invariants: `publications` returns valid events or raises `Unmappable`, whatever the message is: a poisoned one must
not stop its source. Keys of one message's publications are different.
Cost: one pass of a JSON parser over the body if a template wants a field of it, then a few look-ups: about 10 µs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from collections.abc import Mapping as Table
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, NamedTuple, cast

import ujson

from config.names import CHANNEL_NAME
from config.templates import Place, Template, parse_template
from server.event import Event, InvalidEvent

MAX_KEY_CHARACTERS = 128
_UNREAD: Any = object()


class Unmappable(Exception):
    """A message does not fit its mapping. `field` is the place or part that is wrong; neither it nor `reason` holds
    anything of the message."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


@dataclass(slots=True)
class Message:
    """What came from elsewhere. `source` is where it was published (a subject, a channel, a topic), `separator` what
    divides that into parts; `id` is the sender's or the source's own, the same whenever the message comes again."""

    source: str
    body: bytes
    attributes: Table[str, str] = field(default_factory=dict)
    id: str | None = None
    separator: str = "."
    _json: Any = field(default=_UNREAD, init=False, repr=False, compare=False)

    @property
    def size(self) -> int:
        """About how many bytes it holds."""
        return len(self.body) + sum(len(name) + len(value) for name, value in self.attributes.items())

    def json(self) -> Any:
        """The body as JSON, parsed once. Raises Unmappable."""
        if self._json is _UNREAD:
            try:
                self._json = ujson.loads(self.body)
            except (ValueError, RecursionError):
                raise Unmappable("body", "is not JSON") from None
        return self._json

    def text(self) -> str:
        """The body as text. Raises Unmappable."""
        try:
            return self.body.decode()
        except UnicodeDecodeError:
            raise Unmappable("body", "is not UTF-8") from None


class Publication(NamedTuple):
    """An event for a channel, under an idempotency key if the message has an identity of its own."""

    channel: str
    event: Event
    key: str | None = None


MapFunction = Callable[[Message], Sequence[Publication]]
# Takes a message itself, and returns when it is safe. Called again for a message that comes again. Raises Unmappable
# for one that never will do, RelayUnavailable or DatabaseUnavailable for one that should come again later, as often as
# it takes. Whatever else it raises has the message come again a few times.
Handler = Callable[[Message], Awaitable[None]]
# A template, or JSON whose texts are templates.
Form = Template | dict[str, "Form"] | list["Form"] | int | float | bool | None


class Mapping:
    """One source's mapping. `source` is a pattern in the words of the bridge (a NATS subject with wildcards, a Redis
    pattern, a topic or subscription).

    Without `data` an event's data are the message's body. With a text they are the text filled in; with a mapping or a
    list, JSON of that form, in which a text that is one place alone keeps the type of what it names.
    Without `key` a message's own id is the idempotency key, if it has one. `location` is latitude and longitude.
    `function` (`package.module:name`, or a function) makes the publications itself, `handler` takes the message.
    Raises ValueError for a template or function that can't be.
    """

    def __init__(
        self,
        source: str,
        *,
        channel: str = "",
        topics: Sequence[str] = (),
        type: str | None = None,  # noqa: A002 (the setting's name)
        data: object = None,
        private: bool = False,
        key: str | None = None,
        location: Sequence[str] | None = None,
        function: str | MapFunction | None = None,
        handler: Handler | None = None,
    ) -> None:
        self.source = source
        self.handler = handler
        self._function = find_function(function) if isinstance(function, str) else function
        self._channel = parse_template(channel)
        self._topics = [parse_template(topic) for topic in topics]
        self._type = None if type is None else parse_template(type)
        self._data = None if data is None else _form(data)
        self._private = private
        self._key = None if key is None else parse_template(key)
        self._location = None if location is None else [parse_template(degrees) for degrees in location]

    def publications(self, message: Message) -> list[Publication]:
        """What a message becomes. Raises Unmappable."""
        try:
            return _told_apart(self._called(message) if self._function else [self._filled_in(message)], message)
        except InvalidEvent as error:
            raise Unmappable(error.field, error.reason) from None

    def _filled_in(self, message: Message) -> Publication:
        channel = fill(self._channel, message)
        if not CHANNEL_NAME.fullmatch(channel):
            raise Unmappable("channel", "is not a channel's name")
        topics = tuple(fill(topic, message) for topic in self._topics)
        kind = None if self._type is None else fill(self._type, message)
        data = message.text() if self._data is None else _data(self._data, message)
        key = None if self._key is None else fill(self._key, message)
        event = Event(topics, data, kind, private=self._private, location=self._place_of(message))
        return Publication(channel, event, key)

    def _place_of(self, message: Message) -> tuple[float, float] | None:
        if self._location is None:
            return None
        try:
            latitude, longitude = (float(fill(degrees, message)) for degrees in self._location)
        except ValueError:
            raise Unmappable("location", "is not two numbers") from None
        return latitude, longitude

    def _called(self, message: Message) -> list[Publication]:
        assert self._function is not None
        try:
            found = list(self._function(message))
        except (Unmappable, InvalidEvent):
            raise
        except Exception as error:  # a message must not stop its source, whatever it does to the function
            raise Unmappable("function", f"raised {type(error).__name__}") from error
        for publication in found:
            if not isinstance(publication, Publication) or not isinstance(publication.event, Event):
                raise Unmappable("function", "returned something else than publications")
        return found


def _told_apart(found: list[Publication], message: Message) -> list[Publication]:
    """Each under a key of its own, if the message has an identity."""
    result = []
    for number, (channel, event, own) in enumerate(found):
        key = own or message.id
        if key is not None:
            key = f"{key}#{number}" if number else key
            if len(key) > MAX_KEY_CHARACTERS:
                key = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
        result.append(Publication(channel, event, key))
    return result


def find_function(name: str) -> MapFunction:
    """The function that `package.module:name` names. Raises ValueError."""
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise ValueError(f"{name!r} must be package.module:name")
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{name!r} cannot be had: {error}") from error
    if not callable(found):
        raise ValueError(f"{name!r} is not a function")
    return cast(MapFunction, found)


# --- templates


def fill(template: Template, message: Message) -> str:
    """A template's text with its places filled from the message. Raises Unmappable."""
    return "".join(piece if isinstance(piece, str) else _text(piece, message) for piece in template)


def _text(place: Place, message: Message) -> str:
    value = value_of(place, message)
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, (dict, list)):
        raise Unmappable(place.text, "is not a text or a number")
    return _dumped(value, place.text)


def value_of(place: Place, message: Message) -> Any:
    """What a place names in the message. Raises Unmappable."""
    if place.root == "json":
        return _walk(place, message.json())
    if place.root == "body":
        return message.text()
    if place.root == "subject":
        if not place.steps:
            return message.source
        parts = message.source.split(message.separator)
        number = int(place.steps[0])
        found = parts[number] if number < len(parts) else None
    elif place.root == "attributes":
        found = message.attributes.get(place.steps[0])
    else:
        found = message.id
    if found is None:
        raise Unmappable(place.text, "is missing")
    return found


def _walk(place: Place, value: Any) -> Any:
    for step in place.steps:
        if isinstance(value, dict) and step in value:
            value = value[step]
        elif isinstance(value, list) and step.isdecimal() and step.isascii() and int(step) < len(value):
            value = value[int(step)]
        else:
            raise Unmappable(place.text, "is missing")
    return value


def _form(value: object) -> Form:
    if isinstance(value, str):
        return parse_template(value)
    if isinstance(value, dict):
        return {str(name): _form(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_form(item) for item in value]
    if value is None or isinstance(value, (int, float)):
        return value
    raise ValueError("data must be a template, or JSON of templates")


def _data(form: Form, message: Message) -> str:
    """An event's data: text as it is, everything else as JSON."""
    value = _valued(form, message)
    return value if isinstance(value, str) else _dumped(value, "data")


def _valued(form: Form, message: Message) -> Any:
    if isinstance(form, dict):
        return {name: _valued(item, message) for name, item in form.items()}
    if isinstance(form, list):
        return [_valued(item, message) for item in form]
    if not isinstance(form, tuple):
        return form
    if len(form) == 1 and isinstance(form[0], Place):
        return value_of(form[0], message)
    return fill(form, message)


def _dumped(value: Any, name: str) -> str:
    try:
        return ujson.dumps(value, ensure_ascii=False, escape_forward_slashes=False)
    except (ValueError, OverflowError, TypeError, RecursionError):
        raise Unmappable(name, "cannot be written as JSON") from None
