"""`ringcast token`."""

from __future__ import annotations

import time
from typing import Any

import jwt
import pytest

from server.commands.token import token
from tests.commands.conftest import Run
from tests.harness.process import TOKEN_SECRET


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RINGCAST_JWT_SECRET", TOKEN_SECRET)


def _claims(text: str, **options: Any) -> dict[str, Any]:
    return jwt.decode(text.strip(), TOKEN_SECRET, algorithms=["HS256"], **options)


def test_rights_on_the_main_channel_are_mercures(run: Run) -> None:
    result = run(token, "--publish", "a/{b}", "--publish", "c", "--subscribe", "*", "--subject", "shop-7")
    claims = _claims(result.stdout)
    assert claims["mercure"] == {"publish": ["a/{b}", "c"], "subscribe": ["*"]}
    assert claims["sub"] == "shop-7"
    assert "ringcast" not in claims


def test_rights_on_another_channel_are_under_its_name(run: Run) -> None:
    claims = _claims(run(token, "--channel", "prices", "--subscribe", "*", "--operate").stdout)
    assert claims["ringcast"] == {"prices": {"subscribe": ["*"]}, "operate": True}
    assert "mercure" not in claims


def test_it_says_whose_it_is(run: Run) -> None:
    """Jobs know their owners by `sub`; dashboards their company and tenant."""
    claims = _claims(run(token, "--subject", "me", "--company", "aurora", "--tenant", "7").stdout)
    assert (claims["sub"], claims["company"], claims["tenant"]) == ("me", "aurora", "7")
    assert "company" not in _claims(run(token, "--subject", "me").stdout)


def test_a_token_lasts_an_hour_unless_said_otherwise(run: Run) -> None:
    now = time.time()
    assert 3590 < _claims(run(token, "--operate").stdout)["exp"] - now < 3610
    assert 0 < _claims(run(token, "--operate", "--expires-seconds", "10").stdout)["exp"] - now < 20
    assert "exp" not in _claims(run(token, "--operate", "--expires-seconds", "0").stdout)


def test_issuer_audience_and_algorithm_are_the_servers(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.setenv("RINGCAST_JWT_ISSUER", "me")
    monkeypatch.setenv("RINGCAST_JWT_AUDIENCE", "ringcast")
    monkeypatch.setenv("RINGCAST_JWT_ALGORITHM", "HS384")
    text = run(token, "--operate").stdout.strip()
    claims = jwt.decode(text, TOKEN_SECRET, algorithms=["HS384"], issuer="me", audience="ringcast")
    assert claims["iss"] == "me"


def test_a_secret_on_the_command_line_wins(run: Run) -> None:
    other = "another secret of at least thirty-two bytes"
    text = run(token, "--operate", "--secret", other).stdout.strip()
    assert jwt.decode(text, other, algorithms=["HS256"])["ringcast"] == {"operate": True}


def test_a_token_without_rights_is_refused(run: Run) -> None:
    result = run(token, "--tenant", "mine")
    assert (result.exit_code, result.stdout) == (2, "")


def test_a_secret_that_is_too_short_is_refused_and_not_shown(run: Run) -> None:
    result = run(token, "--operate", "--secret", "canary")
    assert result.exit_code == 2
    assert "jwt_secret (command line): must be at least 32 bytes" in result.stderr
    assert "canary" not in result.output


def test_without_a_secret_it_says_why_there_is_no_token(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.delenv("RINGCAST_JWT_SECRET")
    result = run(token, "--operate")
    assert result.exit_code == 1
    assert "development mode needs no token" in result.stderr
    monkeypatch.setenv("RINGCAST_JWKS_URL", "https://login.example/jwks.json")
    assert "signed by their issuer" in run(token, "--operate").stderr
