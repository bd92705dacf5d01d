"""What processes of applications have in common."""

from __future__ import annotations

import pytest

from apps.workers import nodes_of
from config.settings import Settings


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8001"),
        ("0.0.0.0", "http://127.0.0.1:8001"),
        ("::", "http://[::1]:8001"),
        ("::1", "http://[::1]:8001"),
        ("localhost", "http://localhost:8001"),
    ],
)
def test_without_a_name_the_node_of_these_settings_is_asked(host: str, url: str) -> None:
    settings = Settings.model_construct(host=host, port=8001)
    assert nodes_of(settings, []) == [url]
    assert nodes_of(settings, ["http://other:1"]) == ["http://other:1"]
