"""The command lines that a newcomer types."""

from __future__ import annotations

import subprocess

import pytest

from tests.harness.process import Node
from tests.wire.parser import parse_strictly


def curl(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["curl", "-s", *arguments], capture_output=True, timeout=20, check=False)


@pytest.mark.parametrize("version", ["--http1.0", "--http1.1"])
def test_curl_shows_the_stream_as_it_comes(shared_node: Node, version: str) -> None:
    """H08, H15: `curl -N`; `--max-time` ends it, which is exit code 28."""
    found = curl("-N", version, "--max-time", "1", f"{shared_node.url}/channels/curl/events")
    assert found.returncode == 28
    assert [event.type for event in parse_strictly(found.stdout).events] == ["hello"]


def test_curl_publishes_a_form_and_json(shared_node: Node) -> None:
    """The first two lines of any tutorial."""
    hub = curl("-d", "topic=curl&data=hello", f"{shared_node.url}/.well-known/mercure")
    assert len(hub.stdout) == 20
    channel = curl(
        "-H", "Content-Type: application/json", "-d", '{"data": "hello"}', f"{shared_node.url}/channels/curl/events"
    )
    assert channel.stdout.startswith(b'{"ids":')


def test_curl_reads_what_was_before(shared_node: Node) -> None:
    """H13: `last=N` needs no header."""
    address = f"{shared_node.url}/channels/curl-last/events"
    for number in range(3):
        curl("-H", "Content-Type: application/json", "-d", f'{{"data": "{number}"}}', address)
    found = curl("-N", "--max-time", "1", f"{address}?last=2")
    assert [event.data for event in parse_strictly(found.stdout).events if event.type == "message"] == ["1", "2"]


def test_curl_head_returns_at_once(shared_node: Node) -> None:
    """H14: `curl -I`."""
    found = curl("-I", "--max-time", "5", f"{shared_node.url}/channels/curl/events")
    assert found.returncode == 0
    assert found.stdout.startswith(b"HTTP/1.1 200")


def test_curl_upload_that_waits_for_permission_goes_through(shared_node: Node) -> None:
    """`Expect: 100-continue`, which curl adds to larger bodies."""
    found = curl(
        "-H", "Expect: 100-continue", "-d", f"topic=curl&data={'x' * 2000}", f"{shared_node.url}/.well-known/mercure"
    )
    assert len(found.stdout) == 20
