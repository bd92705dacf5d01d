"""`ringcast check-config`."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.settings import Settings
from server.commands.check_config import check_config
from tests.commands.conftest import Run

SECRET = "a secret of at least thirty-two bytes, for tests"


def test_every_setting_is_printed_with_its_value_and_origin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    path = tmp_path / "ringcast.yaml"
    path.write_text("ring_events: 5\n")
    monkeypatch.setenv("RINGCAST_PORT", "9000")
    result = run(check_config, "--config", str(path))
    assert result.exit_code == 0
    rows = {line.split()[0]: line.split(maxsplit=1)[1] for line in result.stdout.splitlines() if line}
    assert set(Settings.model_fields) <= set(rows)
    assert rows["port"].split(maxsplit=1) == ["9000", "environment RINGCAST_PORT"]
    assert rows["ring_events"].split(maxsplit=1) == ["5", f"file {path}"]
    assert rows["host"].split() == ["127.0.0.1", "default"]


def test_a_secret_is_never_printed(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.setenv("RINGCAST_JWT_SECRET", SECRET)
    result = run(check_config)
    assert "jwt_secret" in result.stdout
    assert SECRET not in result.output
    assert [line.split()[1] for line in result.stdout.splitlines() if line.startswith("jwt_secret ")] == ["set"]


def test_development_mode_is_said(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    assert "development mode" in run(check_config).stdout
    monkeypatch.setenv("RINGCAST_JWT_SECRET", SECRET)
    assert "development mode" not in run(check_config).stdout


def test_a_bad_value_ends_with_exit_code_2_and_one_line(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.setenv("RINGCAST_PORT", "ninety")
    result = run(check_config)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "port (environment RINGCAST_PORT): must be a valid integer, not 'ninety'\n"


@pytest.mark.parametrize("content", [None, b"nonsense", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"])
def test_a_key_file_that_cannot_be_used_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run, content: bytes | None
) -> None:
    path = tmp_path / "key.pem"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("RINGCAST_JWT_PUBLIC_KEY", str(path))
    monkeypatch.setenv("RINGCAST_JWT_ALGORITHM", "ES256")
    result = run(check_config)
    assert result.exit_code == 2
    assert result.stderr.startswith("jwt_public_key (environment RINGCAST_JWT_PUBLIC_KEY): ")
    assert len(result.stderr.splitlines()) == 1
