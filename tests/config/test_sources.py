"""Sources: their order, the origins, and what is said about a mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.problems import ConfigError
from config.settings import Settings
from config.sources import load

SECRET = "a secret of at least thirty-two bytes, for tests"


def _file(folder: Path, text: str) -> Path:
    path = folder / "ringcast.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def _refused(folder: Path, text: str | None = None, **command_line: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(_file(folder, text) if text is not None else None, command_line)
    return str(caught.value).split("\n")


def test_without_sources_everything_is_default() -> None:
    loaded = load(None, {})
    assert loaded.settings == Settings()
    assert set(loaded.origins.values()) == {"default"}
    assert set(loaded.origins) == set(Settings.model_fields)


def test_each_source_wins_over_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _file(tmp_path, "port: 1\nring_events: 2\nlag_events: 3\n")
    monkeypatch.setenv("RINGCAST_RING_EVENTS", "20")
    monkeypatch.setenv("RINGCAST_LAG_EVENTS", "30")
    loaded = load(path, {"lag_events": 300})
    settings, origins = loaded.settings, loaded.origins
    assert (settings.port, settings.ring_events, settings.lag_events) == (1, 20, 300)
    assert origins["port"] == f"file {path}"
    assert origins["ring_events"] == "environment RINGCAST_RING_EVENTS"
    assert origins["lag_events"] == "command line"
    assert origins["host"] == "default"
    assert origins["config"] == "command line"


def test_the_file_may_be_named_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _file(tmp_path, "port: 1\n")
    monkeypatch.setenv("RINGCAST_CONFIG", str(path))
    loaded = load(None, {})
    assert loaded.settings.port == 1
    assert loaded.settings.config == str(path)
    assert loaded.origins["config"] == "environment RINGCAST_CONFIG"


def test_what_is_none_on_the_command_line_was_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RINGCAST_PORT", "1")
    assert load(None, {"port": None}).settings.port == 1


def test_an_empty_variable_and_an_empty_name_count_as_not_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RINGCAST_SOCKET", "")
    monkeypatch.setenv("RINGCAST_RING_EVENTS", "")
    loaded = load(_file(tmp_path, "port:\nring_events: 5\n"), {})
    assert (loaded.settings.socket, loaded.settings.port, loaded.settings.ring_events) == (None, 8888, 5)
    assert loaded.origins["port"] == "default"


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    assert load(_file(tmp_path, "# nothing\n"), {}).settings.port == 8888


def test_the_environment_takes_lists_with_commas_and_channels_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RINGCAST_ALLOWED_ORIGINS", "https://a.example,https://b.example")
    monkeypatch.setenv("RINGCAST_CHANNELS", '{"prices": {"lag_events": 5}}')
    settings = load(None, {}).settings
    assert settings.allowed_origins == ["https://a.example", "https://b.example"]
    assert settings.channel("prices").lag_events == 5


def test_channels_of_a_later_source_replace_all_of_an_earlier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RINGCAST_CHANNELS", '{"prices": {}}')
    loaded = load(_file(tmp_path, "channels: {orders: {lag_events: 5}}\n"), {})
    assert list(loaded.settings.channels) == ["prices"]


def test_each_bad_value_is_one_line_with_its_name_and_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RINGCAST_MAX_AGE_SECONDS", "soon")
    text = "port: 99999\nchannels: {prices: {lag_events: 0}}\n"
    assert sorted(_refused(tmp_path, text, heartbeat_style="loud")) == [
        f"channels.prices.lag_events (file {tmp_path}/ringcast.yaml): must be greater than or equal to 1, not 0",
        "heartbeat_style (command line): must be 'comment', 'event' or 'cursor', not 'loud'",
        "max_age_seconds (environment RINGCAST_MAX_AGE_SECONDS): must be a valid number, not 'soon'",
        f"port (file {tmp_path}/ringcast.yaml): must be less than or equal to 65535, not 99999",
    ]


def test_an_unknown_name_in_the_file_is_an_error_that_suggests_the_right_one(tmp_path: Path) -> None:
    assert _refused(tmp_path, "heartbeat_secnds: 3\n") == [
        f"heartbeat_secnds (file {tmp_path}/ringcast.yaml): there is no such setting (did you mean heartbeat_seconds?)"
    ]


def test_an_unknown_override_of_a_channel_is_an_error_that_suggests_the_right_one(tmp_path: Path) -> None:
    (line,) = _refused(tmp_path, "channels: {prices: {lag_event: 3}}\n")
    assert line.startswith("channels.prices.lag_event (file ")
    assert line.endswith("there is no such setting for a channel (did you mean lag_events?)")


@pytest.mark.parametrize("name", ["RINGCAST_HEARTBEAT_SECOND", "ringcast_heartbeat_second"])
def test_an_unknown_variable_is_an_error_that_suggests_the_right_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "3")
    assert _refused(tmp_path) == [
        f"{name} (environment): there is no such setting (did you mean RINGCAST_HEARTBEAT_SECONDS?)"
    ]


def test_the_variables_of_the_clients_are_no_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RINGCAST_TOKEN", "x")
    monkeypatch.setenv("RINGCAST_URL", "http://127.0.0.1:8888")
    load(None, {})


def test_the_file_cannot_name_another_file(tmp_path: Path) -> None:
    (line,) = _refused(tmp_path, "config: other.yaml\n")
    assert "cannot be set in the file itself" in line


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "my-machine", "localhost.example"])
def test_without_a_key_the_server_listens_on_loopback_only(tmp_path: Path, host: str) -> None:
    (line,) = _refused(tmp_path, host=host)
    assert line.startswith(f"host (command line): '{host}' can be reached from other machines")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost"])
def test_without_a_key_any_loopback_address_will_do(host: str) -> None:
    assert load(None, {"host": host}).settings.development


def test_with_a_key_any_address_will_do() -> None:
    assert load(None, {"host": "0.0.0.0", "jwt_secret": SECRET}).settings.host == "0.0.0.0"


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"jwt_secret": SECRET, "jwt_algorithm": "RS256"}, "jwt_algorithm"),
        ({"jwt_secret": SECRET, "jwt_algorithm": "EdDSA"}, "jwt_algorithm"),
        ({"jwt_secret": "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA\n-----END PUBLIC KEY-----"}, "jwt_secret"),
        ({"jwt_secret": '{"kty": "oct", "k": "c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0"}'}, "jwt_secret"),
        ({"jwt_secret": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ"}, "jwt_secret"),
        ({"jwt_secret": "short"}, "jwt_secret"),
        ({"jwt_secret": SECRET, "jwt_algorithm": "HS512"}, "jwt_secret"),
        ({"jwt_public_key": "key.pem"}, "jwt_algorithm"),
        ({"jwt_public_key": "key.pem", "jwt_algorithm": "HS512"}, "jwt_algorithm"),
        ({"jwt_public_key": "key.pem", "jwt_secret": SECRET}, "jwt_public_key"),
        ({"retry_min_ms": 9000}, "retry_min_ms"),
    ],
)
def test_values_that_do_not_go_together_are_refused(tmp_path: Path, given: dict[str, object], field: str) -> None:
    (line,) = _refused(tmp_path, **given)
    assert line.startswith(f"{field} (")


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_a_public_key_goes_with_its_algorithms(algorithm: str) -> None:
    assert not load(None, {"jwt_public_key": "key.pem", "jwt_algorithm": algorithm}).settings.development


@pytest.mark.parametrize(
    "text",
    [
        "jwt_secret: [canary]\n",
        "jwt_secret: !canary\n",
        "jwt_secret: *canary\n",
        "jwt_secret: @canary\n",
        "jwt_secret: 'canary\n",
        "jwt_secret: can\tary: canary\n",
        "jwt_secret: canary\n",
        "jwt_public_key: '-----BEGIN PRIVATE KEY-----canary'\n",
        "jwks_url: https://canary@keys.example/\n",
        "relay: redis://user:canary@redis.example/\n",
    ],
)
def test_no_error_shows_a_secret(tmp_path: Path, text: str) -> None:
    assert "canary" not in "\n".join(_refused(tmp_path, text))
