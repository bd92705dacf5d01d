"""Settings as values: defaults, ranges, forms, and a channel's policy."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from config.settings import GROUPS, Settings

BAD_VALUES = [
    ("port", -1),
    ("port", 65_536),
    ("port", True),
    ("port", 80.5),
    ("heartbeat_seconds", -1),
    ("heartbeat_seconds", 3601),
    ("heartbeat_seconds", float("nan")),
    ("heartbeat_seconds", float("inf")),
    ("heartbeat_seconds", True),
    ("jwt_leeway_seconds", 31),
    ("redis_replicas_seconds", 0.0004),
    ("redis_replicas_seconds", 4),
    ("max_age_jitter", 1),
    ("header_seconds", 0),
    ("write_stall_seconds", 0),
    ("ring_events", 0),
    ("lag_events", 0),
    ("heartbeat_style", "loud"),
    ("lag_policy", "block"),
    ("jwt_algorithm", "none"),
    ("jwt_algorithm", "hs256"),
    ("host", ""),
    ("host", "http://127.0.0.1"),
    ("socket", ""),
    ("socket", "/" + "x" * 107),
    ("relay", "memory"),
    ("relay", "sqlite:"),
    ("relay", "sqlite: "),
    ("relay", "redis:127.0.0.1"),
    ("relay", "redis://user:secret@127.0.0.1"),
    ("relay", "http://127.0.0.1"),
    ("redis_prefix", "a b"),
    ("relay", ""),
    ("trusted_proxies", ["10.0.0.1/8"]),
    ("trusted_proxies", ["proxy.example"]),
    ("allowed_origins", ["*"]),
    ("allowed_origins", ["null"]),
    ("allowed_origins", ["https://app.example/"]),
    ("allowed_origins", ["https://App.example"]),
    ("allowed_origins", ["app.example"]),
    ("allowed_origins", ["https://*.example"]),
    ("jwks_url", "http://keys.example/jwks.json"),
    ("jwks_url", "http://localhost.example/jwks.json"),
    ("jwks_url", "https:///jwks.json"),
    ("jwks_url", "file://elsewhere/jwks.json"),
    ("jwks_url", "ftp://keys.example/jwks.json"),
    ("jwks_url", "https://user:password@keys.example/jwks.json"),
    ("jwt_public_key", "-----BEGIN PRIVATE KEY-----\n…"),
    ("jwt_public_key", " "),
    ("channels", {"Prices": {}}),
    ("channels", {"": {}}),
    ("channels", {"a" * 65: {}}),
    ("channels", {"prices\n": {}}),
    ("channels", {"prices": {"hello_event": "open"}}),
    ("channels", {"prices": {"hello_event": "a\nb"}}),
    ("channels", {"prices": {"hello_event": ""}}),
    ("channels", {"prices": {"lag_events": 0}}),
    ("channels", {"prices": {"port": 1}}),
    ("channels", "{"),
    ("channels", "[]"),
    ("no_such_setting", 1),
]

GOOD_VALUES = [
    ("port", 0),
    ("port", "8080"),
    ("heartbeat_seconds", 0),
    ("heartbeat_seconds", 0.05),
    ("relay", "sqlite:/tmp/a b.db"),
    ("relay", "sqlite:relative.db"),
    ("trusted_proxies", ["10.0.0.0/8", "::1", "192.0.2.7"]),
    ("allowed_origins", ["https://app.example", "http://localhost:5173", "http://[::1]:80", "chrome-extension://abc"]),
    ("jwks_url", "https://keys.example/jwks.json"),
    ("jwks_url", "http://127.0.0.1:9/jwks.json"),
    ("jwks_url", "http://[::1]:9/jwks.json"),
    ("jwks_url", "file:///etc/jwks.json"),
    ("channels", {"a" * 64: {"hello_event": "connected"}}),
]


@pytest.mark.parametrize(("name", "value"), BAD_VALUES)
def test_a_value_outside_its_range_or_form_is_refused(name: str, value: object) -> None:
    with pytest.raises(ValidationError):
        Settings(**{name: value})


@pytest.mark.parametrize(("name", "value"), GOOD_VALUES)
def test_a_value_within_its_range_and_form_is_taken(name: str, value: object) -> None:
    Settings(**{name: value})


def test_settings_made_by_hand_do_not_look_at_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RINGCAST_PORT", "1")
    assert Settings().port == 8888


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1


def test_lists_and_channels_are_not_shared_between_settings() -> None:
    Settings().allowed_origins.append("https://app.example")
    assert Settings().allowed_origins == []


def test_a_list_may_be_one_text_with_commas() -> None:
    origins = Settings(allowed_origins=" https://a.example, https://b.example,, ").allowed_origins
    assert origins == ["https://a.example", "https://b.example"]


def test_a_channel_without_overrides_has_the_common_policy() -> None:
    settings = Settings(lag_events=7, heartbeat_style="comment", anonymous=True)
    policy = settings.channel("anything")
    assert (policy.lag_events, policy.heartbeat_style, policy.anonymous) == (7, "comment", True)
    assert policy.hello_event == "hello"


def test_a_channels_overrides_win_and_only_there() -> None:
    overrides = {"lag_events": 100, "heartbeat_seconds": 0, "hello_event": "connected", "anonymous": False}
    settings = Settings(anonymous=True, channels={"prices": overrides})
    policy = settings.channel("prices")
    assert policy.model_dump(include=set(overrides)) == overrides
    assert policy.ring_events == settings.ring_events
    assert settings.channel("main").lag_events == 1000


@pytest.mark.parametrize("key", [{"jwt_secret": "x"}, {"jwt_public_key": "x"}, {"jwks_url": "https://a.example/"}])
def test_development_mode_is_the_absence_of_every_key(key: dict[str, str]) -> None:
    assert Settings().development
    assert not Settings(**key).development


def test_a_secret_is_in_no_representation_of_the_settings() -> None:
    settings = Settings(jwt_secret="canary")
    assert "canary" not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"


def test_every_setting_belongs_to_one_group() -> None:
    grouped = [name for group in GROUPS for name in group.model_fields]
    assert sorted(grouped) == sorted(Settings.model_fields)
