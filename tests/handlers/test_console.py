"""The console's files, and the headers that keep what is shown in them from doing anything."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from tornado.httpclient import AsyncHTTPClient

import handlers.console
from handlers.console import CONSOLE_FILES, console_file
from tests.handlers.test_application import fetch

FOLDER = Path(handlers.console.__file__).parent
MEDIA_TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}


@pytest.mark.gen_test
@pytest.mark.parametrize("path", ["/", *(f"/console/{name}" for name in CONSOLE_FILES)])
async def test_every_file_comes_with_headers_that_let_nothing_else_run(
    http_client: AsyncHTTPClient, base_url: str, path: str
) -> None:
    answer = await fetch(http_client, base_url + path)
    assert answer.code == 200
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'self';")
    assert "frame-ancestors 'none'" in policy
    assert "base-uri 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Cache-Control"] == "no-store"
    name = path.rpartition("/")[2] or "index.html"
    assert answer.body == (FOLDER / name).read_bytes()
    assert answer.headers["Content-Type"] == MEDIA_TYPES.get(Path(name).suffix, "text/html; charset=utf-8")


@pytest.mark.gen_test
@pytest.mark.parametrize("own_settings", [{"console": False}])
@pytest.mark.parametrize("path", ["/", "/console/console.js"])
async def test_a_console_that_is_off_is_not_found(
    http_client: AsyncHTTPClient, base_url: str, own_settings: dict[str, Any], path: str
) -> None:
    assert (await fetch(http_client, base_url + path)).code == 404


def test_every_file_of_the_page_is_served_and_no_other() -> None:
    files = {path.name for path in FOLDER.iterdir() if path.suffix in MEDIA_TYPES}
    assert set(CONSOLE_FILES) == files
    assert console_file("__init__.py") is None
    assert console_file("../console/console.js") is None
    assert console_file("missing.js") is None


def test_what_the_page_asks_for_is_there() -> None:
    page = (FOLDER / "index.html").read_text()
    asked = re.findall(r'(?:src|href)="/?(?:console/)?([\w.-]+)"', page)
    assert asked
    assert set(asked) <= set(CONSOLE_FILES)


@pytest.mark.parametrize("name", ["index.html", *CONSOLE_FILES])
def test_nothing_comes_from_elsewhere_and_nothing_is_inline(name: str) -> None:
    text = (FOLDER / name).read_text()
    for found in re.findall(r"https?://[^\s\"'`)<]+", text):
        assert found.startswith(("http://www.w3.org/", "http://127.0.0.1", "http://localhost")), found
    if name.endswith(".html"):
        assert not re.search(r"<script(?![^>]*\bsrc=)", text)
        assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", text)
    if name.endswith(".js"):
        assert not re.search(r"\beval\(|new Function|innerHTML|outerHTML|insertAdjacentHTML|document\.write", text)
