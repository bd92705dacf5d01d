"""Rooms: which channel a path means, and who may bring one into being."""

from __future__ import annotations

from typing import Any

import pytest
from tornado.ioloop import IOLoop

from handlers.answers import Refused
from handlers.rooms import Rooms
from server.rights import ANONYMOUS, DEVELOPMENT, Principal, principal_of
from tests.handlers.lodge import KEYED, Lodge, bearer, request

SHOP = {"publish": ["a"], "subscribe": []}


def principal(**claims: Any) -> Principal:
    return principal_of(claims, None, "fingerprint")


@pytest.fixture
def rooms(lodge: Lodge) -> Rooms:
    return lodge.rooms


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/.well-known/mercure", "main"),
        ("/channels/main/events", "main"),
        ("/channels/a-b_9/events", "a-b_9"),
        (f"/channels/{'a' * 64}/events", "a" * 64),
    ],
)
def test_a_path_means_a_channel(rooms: Rooms, path: str, name: str) -> None:
    assert rooms.channel_name(path) == name


@pytest.mark.parametrize(
    "path",
    ["/", "", "/channels//events", "/channels/A/events", "/channels/1a/events", f"/channels/{'a' * 65}/events",
     "/channels/a/events/", "/channels/a%62/events", "/channels/a/events\n", "/.well-known/mercure/",
     "//.well-known/mercure"],
)  # fmt: skip
def test_any_other_path_means_none(rooms: Rooms, path: str) -> None:
    with pytest.raises(Refused) as caught:
        rooms.channel_name(path)
    assert caught.value.status == 404


@pytest.mark.parametrize("own_settings", [KEYED])
def test_a_bad_token_is_refused_as_the_authenticator_has_it(rooms: Rooms, own_settings: dict[str, Any]) -> None:
    with pytest.raises(Refused) as caught:
        rooms.authenticate(request("/", authorization="Bearer nonsense"))
    assert (caught.value.status, caught.value.challenge) == (401, 'Bearer error="invalid_token"')
    assert rooms.authenticate(request("/")) is ANONYMOUS
    assert rooms.authenticate(request("/", **bearer(sub="shop"))).subject == "shop"


@pytest.mark.parametrize(
    ("asking", "may"),
    [
        (DEVELOPMENT, True),
        (ANONYMOUS, False),
        (principal(ringcast={"new": SHOP}), True),
        (principal(ringcast={"other": SHOP}), False),
        (principal(mercure={"publish": ["*"]}), False),
    ],
)
def test_a_channel_comes_into_being_for_who_has_rights_there(rooms: Rooms, asking: Principal, may: bool) -> None:
    if may:
        rooms.check_openable("new", asking)
        return
    with pytest.raises(Refused) as caught:
        rooms.check_openable("new", asking)
    assert (caught.value.status, caught.value.field) == (404, "channel")


@pytest.mark.parametrize("own_settings", [{"open_channels": False}, {"max_channels": 1}])
def test_no_channel_comes_into_being_where_that_is_off_or_there_are_enough(
    rooms: Rooms, io_loop: IOLoop, own_settings: dict[str, Any]
) -> None:
    with pytest.raises(Refused):
        rooms.check_openable("new", DEVELOPMENT)
    if "max_channels" in own_settings:
        with pytest.raises(Refused, match="there is no channel new"):
            io_loop.run_sync(lambda: rooms.open("new"))
    assert io_loop.run_sync(lambda: rooms.open("main")) is rooms.hub.channels["main"]
