"""Subscribing: the parameters of a stream, and the order in which a request is judged."""

from __future__ import annotations

import contextlib
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tornado.ioloop import IOLoop

from handlers import subscribe
from handlers.answers import Refused
from handlers.subscribe import MAX_KEPT_PARAMETERS, MAX_PATTERN_BYTES, MAX_SELECTORS, Wanted, parse_wanted
from server.channel import Channel
from server.frames import Encoding
from server.opening import Subscription
from server.region import Region
from server.selection import Selection
from server.selectors import exact_selector, parse_selector
from tests.handlers.lodge import KEYED, MERCURE, ORIGIN, Lodge, bearer, request, token

EVENTS = "/channels/main/events"
OTHERS = "/channels/prices/events"
READER: dict[str, Any] = {"mercure": {"subscribe": ["a"]}}


def wanted(*pairs: tuple[str, str], mercure: bool = False) -> Wanted:
    return parse_wanted(urlencode(pairs), mercure)


def refused(lodge: Lodge, path: str, **headers: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        lodge.subscriber.subscribe(request(path, **headers))
    return caught.value


def subscribed(lodge: Lodge, path: str, **headers: Any) -> Subscription:
    found = lodge.subscriber.subscribe(request(path, **headers))
    assert found is not None
    return found


# --- parameters


def test_topics_unite_and_may_be_exact_or_templates() -> None:
    found = wanted(("topic", "a/{id}"), ("topic", "b"), ("match", "c/{id}"), ("match_exact", "d"), mercure=True)
    assert found.topics == {
        parse_selector("a/{id}"), parse_selector("b"), exact_selector("c/{id}"), exact_selector("d")
    }  # fmt: skip


@pytest.mark.parametrize("pairs", [[], [("topic", "*")], [("topic", "a"), ("topic", "*")]])
def test_everything_is_one_value_however_it_is_said(pairs: list[tuple[str, str]]) -> None:
    assert wanted(*pairs).topics is None


def test_the_mercure_endpoint_wants_a_topic() -> None:
    with pytest.raises(Refused, match="at least one"):
        wanted(("type", "x"), mercure=True)
    assert wanted(("match", "*"), mercure=True).topics is None


@pytest.mark.parametrize("name", ["matchURLPattern", "match_regex", "MATCH", "Match_exact", "match-exact", "matches"])
def test_a_matcher_that_is_not_supported_is_refused_on_the_mercure_endpoint_alone(name: str) -> None:
    with pytest.raises(Refused) as caught:
        wanted(("topic", "a"), (name, "b"), mercure=True)
    assert caught.value.field == name
    assert wanted((name, "b")).topics is None


def test_types_and_the_last_few_are_of_the_channel_api_alone() -> None:
    found = wanted(("type", "x"), ("type", "message"), ("last", "5"))
    assert (found.types, found.last) == ({"x", "message"}, 5)
    found = wanted(("topic", "a"), ("type", "x"), ("last", "nonsense"), mercure=True)
    assert (found.types, found.last) == (None, 0)


@pytest.mark.parametrize("last", ["0", "1001", "-1", "", "1.0", " 1", "٣", "99999", "1e2", "00001"])
def test_the_last_few_are_a_number_from_1_to_1000(last: str) -> None:
    with pytest.raises(Refused) as caught:
        wanted(("last", last))
    assert caught.value.field == "last"


def test_a_region_is_of_the_channel_api_alone() -> None:
    assert wanted(("lat", "6.5"), ("lon", "3.4"), ("radius", "25")).region == Region(6.5, 3.4, 25)
    assert wanted(("lat", "6.5"), ("lon", "3.4")).region == Region(6.5, 3.4, 50)
    assert wanted(("topic", "a")).region is None
    assert wanted(("topic", "a"), ("lat", "nonsense"), mercure=True).region is None


@pytest.mark.parametrize("name", ["lat", "lon", "radius"])
@pytest.mark.parametrize("value", ["", "x", "nan", "-1000", "\ufffd"])
def test_a_region_that_cannot_be_is_refused(name: str, value: str) -> None:
    with pytest.raises(Refused) as caught:
        wanted(*({"lat": "1", "lon": "1", "radius": "1"} | {name: value}).items())
    assert (caught.value.field, caught.value.status) == (name, 400)


def test_regions_do_not_unite() -> None:
    with pytest.raises(Refused, match="once") as caught:
        wanted(("lat", "1"), ("lon", "1"), ("lon", "2"))
    assert caught.value.field == "lon"


@pytest.mark.parametrize("topic", ["", "a\nb", "\u202e", "a" * 4097])
def test_a_selector_that_cannot_be_is_refused(topic: str) -> None:
    with pytest.raises(Refused) as caught:
        wanted(("topic", topic))
    assert (caught.value.field, caught.value.status) == ("topic", 400)


@pytest.mark.parametrize("name", ["topic", "type"])
def test_selectors_are_bounded_in_number(name: str) -> None:
    wanted(*[(name, str(number)) for number in range(MAX_SELECTORS)])
    with pytest.raises(Refused, match="at most 100"):
        wanted(*[(name, str(number)) for number in range(MAX_SELECTORS + 1)])


def test_templates_are_bounded_by_what_they_cost_together() -> None:
    longest = "{a}" + "b" * (MAX_PATTERN_BYTES // 2 - 3)
    wanted(("topic", longest), ("topic", "items/" + longest), ("topic", "c" * 4096), ("topic", "*"))
    wanted(("topic", longest), ("topic", longest), ("match", longest), mercure=True)  # no template
    with pytest.raises(Refused, match="4096 bytes in all") as caught:
        wanted(("topic", longest), ("topic", longest), ("topic", "{x}"))
    assert (caught.value.field, caught.value.status) == ("topic", 400)


@pytest.mark.parametrize(
    ("query", "cursor"),
    [
        ("", None),
        ("topic=a", None),
        ("last_event_id=1", "1"),
        ("Last-Event-ID=4&lastEventId=3&lastEventID=2&last_event_id=1", "1"),
        ("Last-Event-ID=4&lastEventId=3&lastEventID=2", "2"),
        ("Last-Event-ID=4&lastEventId=3", "3"),
        ("Last-Event-ID=4", "4"),
        ("last_event_id=&Last-Event-ID=4", "4"),
        ("last_event_id=", ""),
        ("last_event_id=1&last_event_id=2", "1"),
        ("last_event_id=a%20b", "a b"),
        ("last_event_id=%ff", "\ufffd"),
        ("LAST_EVENT_ID=1", None),
    ],
)
def test_a_cursor_has_four_names_in_one_order(query: str, cursor: str | None) -> None:
    assert parse_wanted(query, False).cursor == cursor


def test_unknown_parameters_are_ignored() -> None:
    assert wanted(("x", "y"), ("Topic", "b"), ("authorization", "t")).topics is None


@given(st.text(max_size=60) | st.text("topic=&%{}amchlstyepd_EI-1+", max_size=60))
def test_any_query_is_understood_or_refused(query: str) -> None:
    for mercure in (False, True):
        with contextlib.suppress(Refused):  # nothing else may come out
            assert parse_wanted(query, mercure).last <= 1000


# --- the value that comes out


def test_a_subscription_holds_what_the_request_said(lodge: Lodge) -> None:
    found = subscribed(lodge, f"{EVENTS}?topic=a&type=x&last=3", last_event_id="here")
    assert found.channel is lodge.node.hub.channels["main"]
    assert found.selection == Selection(frozenset([parse_selector("a")]), frozenset(["x"]), None)
    assert (found.cursor, found.last, found.subject, found.expires, found.origin) == ("here", 3, "", None, None)
    assert (found.remote, found.encoding) == ("127.0.0.1", Encoding.CHUNKED)


def test_a_region_is_part_of_the_selection_whatever_the_grants(lodge: Lodge) -> None:
    here = Region(6.5, 3.4, 50)
    found = wanted(("topic", "a"), ("lat", "6.5"), ("lon", "3.4"))
    for grants in ((), (parse_selector("*"),), (parse_selector("a"),)):
        assert found.selection(grants).region == here
    assert subscribed(lodge, f"{EVENTS}?lat=6.5&lon=3.4&radius=50.0").selection == Selection(None, None, None, here)


def test_equal_urls_give_equal_selections(lodge: Lodge) -> None:
    one, other = (subscribed(lodge, f"{EVENTS}?topic=a").selection for _ in range(2))
    assert one == other
    assert subscribed(lodge, f"{MERCURE}?topic=a").selection == one


@pytest.mark.parametrize(
    ("header", "query", "cursor"),
    [
        ("h", "last_event_id=q", "h"),
        ("", "last_event_id=q", "q"),
        ("", "", ""),
        (None, "", None),
        (None, "last_event_id=q", "q"),
        ("é", "", "é"),
        (" ", "last_event_id=q", " "),
    ],
)
def test_the_header_counts_before_the_query_unless_it_is_empty(
    lodge: Lodge, header: str | None, query: str, cursor: str | None
) -> None:
    headers = {} if header is None else {"last_event_id": header}
    assert subscribed(lodge, f"{EVENTS}?{query}", **headers).cursor == cursor


def test_a_client_of_http_1_0_gets_no_chunks(lodge: Lodge) -> None:
    asked = request(EVENTS)
    asked.http_1_0 = True
    found = lodge.subscriber.subscribe(asked)
    assert found is not None
    assert found.encoding is Encoding.PLAIN


@pytest.mark.parametrize("own_settings", [{"trusted_proxies": ["127.0.0.1"]}])
def test_the_address_is_the_one_before_the_proxy(lodge: Lodge, own_settings: dict[str, Any]) -> None:
    assert subscribed(lodge, EVENTS, x_forwarded_for="203.0.113.5").remote == "203.0.113.5"


# --- who may


@pytest.mark.parametrize("own_settings", [KEYED])
def test_a_token_says_who_reads_and_until_when(lodge: Lodge, own_settings: dict[str, Any]) -> None:
    found = subscribed(lodge, EVENTS, **bearer(sub="shop", exp=4_000_000_000, **READER))
    assert (found.subject, found.expires) == ("shop", 4_000_000_000)
    assert found.selection.grants == (parse_selector("a"),)
    assert subscribed(lodge, EVENTS, **bearer()).selection.grants == ()
    assert subscribed(lodge, EVENTS, **bearer(mercure={"subscribe": ["b", "*"]})).selection.grants is None


@pytest.mark.parametrize("own_settings", [KEYED | {"anonymous": True}])
def test_without_a_token_public_events_may_be_read_where_that_is_on(lodge: Lodge, own_settings: dict[str, Any]) -> None:
    assert subscribed(lodge, EVENTS).selection.grants == ()
    assert refused(lodge, EVENTS, authorization="Bearer nonsense").status == 401


@pytest.mark.parametrize("own_settings", [KEYED])
def test_the_checks_have_an_order(lodge: Lodge, own_settings: dict[str, Any]) -> None:
    everything_wrong = "/channels/hidden/events?last=0"
    assert refused(lodge, everything_wrong, origin="https://evil.example", authorization="Bearer x").status == 403
    assert refused(lodge, everything_wrong, origin=ORIGIN, authorization="Bearer x").status == 401
    assert refused(lodge, everything_wrong, **bearer()).field == "last"
    assert refused(lodge, "/channels/hidden/events", **bearer()).status == 404
    assert refused(lodge, "/channels/Wrong/events", **bearer()).status == 404
    assert refused(lodge, EVENTS).challenge == "Bearer"
    assert refused(lodge, everything_wrong).challenge == "Bearer"
    lodge.node.begin_drain()
    assert refused(lodge, EVENTS).status == 401
    assert refused(lodge, EVENTS, **bearer()).code == "draining"


@pytest.mark.parametrize("own_settings", [KEYED])
def test_a_channel_without_a_grant_is_as_one_that_is_not_there(
    lodge: Lodge, io_loop: IOLoop, own_settings: dict[str, Any]
) -> None:
    nothing = refused(lodge, OTHERS, **bearer(**READER))
    io_loop.run_sync(lambda: lodge.rooms.open("prices"))
    hidden = refused(lodge, OTHERS, **bearer(**READER))
    assert (hidden.status, hidden.field, hidden.reason) == (nothing.status, nothing.field, nothing.reason)
    assert hidden.status == 404
    assert subscribed(lodge, OTHERS, **bearer(ringcast={"prices": {"subscribe": ["x"]}})).channel.name == "prices"


def test_a_channel_that_is_not_open_yet_takes_waiting(lodge: Lodge, io_loop: IOLoop) -> None:
    assert lodge.subscriber.subscribe(request(OTHERS)) is None
    found = io_loop.run_sync(lambda: lodge.subscriber.subscribe_later(request(OTHERS)))
    assert isinstance(found.channel, Channel)
    assert found.channel.name == "prices"
    assert lodge.subscriber.subscribe(request(OTHERS)) is not None


@pytest.mark.parametrize("own_settings", [KEYED | {"max_connections_per_subject": 1}])
def test_limits_are_asked_last_and_know_the_subject(lodge: Lodge, own_settings: dict[str, Any]) -> None:
    lodge.node.admission.enter("192.0.2.1", "shop")
    assert refused(lodge, EVENTS, **bearer(sub="shop")).code == "too_many"
    assert subscribed(lodge, EVENTS, **bearer(sub="other"))
    assert lodge.node.admission.refused == {"too_many": 1}


# --- what is remembered of a URL


def remembered() -> int:
    return subscribe._parse_wanted_again.cache_info().currsize


def test_a_url_is_parsed_once(lodge: Lodge, monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"{EVENTS}?topic=seen-before"
    subscribed(lodge, path)
    before = subscribe._parse_wanted_again.cache_info().hits
    subscribed(lodge, path)
    assert subscribe._parse_wanted_again.cache_info().hits == before + 1


@pytest.mark.parametrize(("parameters", "kept"), [(MAX_KEPT_PARAMETERS, 1), (MAX_KEPT_PARAMETERS + 1, 0)])
def test_a_url_of_many_parameters_is_not_kept(lodge: Lodge, parameters: int, kept: int) -> None:
    query = "&".join(f"topic=many-{parameters}-{number}" for number in range(parameters))
    before = remembered()
    subscribed(lodge, f"{EVENTS}?{query}")
    assert remembered() == before + kept


@pytest.mark.parametrize("own_settings", [KEYED])
@pytest.mark.parametrize("name", ["authorization", "%61uthorization", "authorizatio%6E"])
def test_a_url_that_carries_a_token_is_never_kept(lodge: Lodge, own_settings: dict[str, Any], name: str) -> None:
    before = remembered()
    assert subscribed(lodge, f"{EVENTS}?topic=secret-{name}&{name}={token(**READER)}").selection.grants
    assert remembered() == before
