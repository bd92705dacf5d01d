"""What is written for people agrees with the settings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from annotated_types import Ge, Gt

from config import reference
from config.display import default, plain, show
from config.fields import Unit
from config.settings import Settings
from config.sources import load, variable

CONFIG = Path(__file__).parents[2] / "config"
# Shown with an example instead of a default, because the default is nothing.
EXAMPLES = {
    "redis_username",
    "redis_password",
    "socket",
    "trusted_proxies",
    "jwt_secret",
    "jwt_public_key",
    "jwks_url",
    "jwt_issuer",
    "jwt_audience",
    "allowed_origins",
    "channels",
    "monitors_secret",
    "nats_url",
    "nats_credentials",
    "nats_ca_file",
    "nats_certificate_file",
    "pubsub_project",
    "pubsub_credentials",
    "pubsub_audience",
    "pubsub_email",
    "bridges",
}


def test_the_reference_is_as_new_as_the_settings() -> None:
    page = reference.PAGE.read_text(encoding="utf-8")
    assert page == reference.page(), "run `python -m config.reference`"


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_is_explained_in_the_reference(name: str) -> None:
    info = Settings.model_fields[name]
    assert info.description
    assert f"| `{name}` `{variable(name)}` |" in reference.page()


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_number_has_a_unit_and_says_what_zero_means(name: str) -> None:
    info = Settings.model_fields[name]
    if info.annotation not in (int, float):
        return
    assert any(isinstance(item, Unit) for item in info.metadata)
    allows_zero = any(isinstance(item, Ge) and item.ge == 0 for item in info.metadata)
    assert allows_zero or any(isinstance(item, (Ge, Gt)) for item in info.metadata)
    assert isinstance(info.json_schema_extra, dict)
    assert bool(info.json_schema_extra["zero"]) == allows_zero


def _uncommented(text: str) -> str:
    return "\n".join(re.sub(r"^#(?=(?:  ){0,4}(?:- )?[a-z{])", "", line) for line in text.split("\n"))


def test_the_example_file_shows_every_setting_with_its_default(tmp_path: Path) -> None:
    text = (CONFIG / "ringcast.yaml").read_text(encoding="utf-8")
    # One key at a time is right; the example shows all three.
    lines = [line for line in _uncommented(text).split("\n") if not re.match("jwt_public_key|jwks_url", line)]
    path = tmp_path / "all.yaml"
    path.write_text("\n".join(lines), encoding="utf-8")
    loaded = load(path, {})
    shown = {name for name, origin in loaded.origins.items() if origin.startswith("file")}
    assert shown | {"jwt_public_key", "jwks_url", "config"} == set(Settings.model_fields)
    for name in shown - EXAMPLES:
        assert getattr(loaded.settings, name) == default(name), name


def test_the_example_file_as_it_is_changes_nothing() -> None:
    loaded = load(CONFIG / "ringcast.yaml", {})
    assert not any(origin.startswith("file") for origin in loaded.origins.values())


def test_every_line_of_the_example_environment_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = re.findall(r"^#(RINGCAST_\w+)=(.*)$", (CONFIG / "ringcast.env.example").read_text(), re.MULTILINE)
    assert lines
    for name, value in lines:
        if name != "RINGCAST_CONFIG":
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("RINGCAST_JWT_SECRET", "a secret of at least thirty-two bytes")
    load(None, {})


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("jwt_secret", None, "not set"),
        ("jwt_secret", Settings(jwt_secret="canary").jwt_secret, "set"),
        ("jwt_public_key", "-----BEGIN PUBLIC KEY-----", "set"),
        ("relay", "redis://user:canary@host/0", "redis://***@host/0"),
        ("console", True, "true"),
        ("heartbeat_seconds", 30.0, "30"),
        ("slice_ms", 0.25, "0.25"),
        ("allowed_origins", [], "none"),
        ("allowed_origins", ["https://a.example", "https://b.example"], "https://a.example,https://b.example"),
        ("channels", Settings(channels={"a": {"lag_events": 5}}).channels, '{"a": {"lag_events": 5}}'),
    ],
)
def test_a_value_is_shown_as_the_environment_takes_it_and_a_secret_not_at_all(
    name: str, value: object, text: str
) -> None:
    assert show(name, value) == text


def test_what_is_shown_can_be_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(
        max_age_seconds=12_345_678.5, channels={"a": {"anonymous": True}}, allowed_origins=["https://a.b"]
    )
    for name in ("max_age_seconds", "channels", "allowed_origins", "console", "ring_bytes"):
        monkeypatch.setenv(variable(name), plain(getattr(settings, name)))
    assert load(None, {}).settings == settings


def test_on_one_machine_redis_keeps_what_it_acknowledged_and_the_nodes_are_told_so() -> None:
    """One without the other is an epoch's gap for everybody at each boot, or events that are lost in silence."""
    text = (CONFIG.parent / "docs" / "operations.md").read_text()
    recipe = text[text.index("## On one machine") : text.index("## How large")]
    assert "/appendfsync always/' /etc/redis/ringcast.conf" in recipe
    assert "\\nRINGCAST_REDIS_DURABLE=true|" in recipe
