"""`ringcast rolling-restart`: restarts nodes one by one, so that all but one serve at any time.

Owns the order and the conditions: a node is restarted only while all others are ready, counts as back when a process
younger than the restart says so at `/ready`, and the first that does not come back ends the run. What a restart is, is
a command (systemctl by default); draining is the node's own, at SIGTERM. Must never know what a node holds.

Nodes that are not ready are restarted first: they have nothing to lose, and no other node may go before they are back.
"""

from __future__ import annotations

import http.client
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

import click

from config.problems import redact
from server.commands.posting import describe
from server.commands.remote import MAX_ANSWER_BYTES, InvalidAddress, Remote, json_object, visible

EXIT_STOPPED = 1
ANSWER_SECONDS = 5.0
POLL_SECONDS = 0.2
# `/health` rounds its uptime to a tenth of a second.
ROUNDING_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Node:
    """A node by its name, and where it answers itself (not through a proxy, which would ask another)."""

    name: str
    remote: Remote

    @classmethod
    def parse(cls, text: str) -> Node:
        """Read `NAME=URL`, or `PORT` for a node of this machine. Raises InvalidAddress."""
        name, given, url = text.partition("=")
        if not name or (not given and not name.isdigit()):
            raise InvalidAddress("must be a port, or NAME=http://HOST:PORT")
        return cls(name, Remote.parse(url if given else f"http://127.0.0.1:{name}"))

    def unready(self) -> str | None:
        """Why it does not serve, or None if it does."""
        try:
            status, body = self._get("/ready")
        except (OSError, http.client.HTTPException) as error:
            return describe(error)
        if status == 200:
            return None
        checks = body.get("checks")
        return f"{status} {visible(json.dumps(checks))}" if checks else str(status)

    def age_seconds(self) -> float:
        """How long its process has been running. Raises OSError, HTTPException."""
        uptime = self._get("/health")[1].get("uptime_seconds")
        return float(uptime) if isinstance(uptime, (int, float)) else float("inf")

    def _get(self, path: str) -> tuple[int, dict[str, object]]:
        with closing(self.remote.connection(ANSWER_SECONDS)) as connection:
            connection.request("GET", self.remote.prefix + path, headers={"Connection": "close"})
            with connection.getresponse() as answer:
                return answer.status, json_object(answer.read(MAX_ANSWER_BYTES))


class Stopped(Exception):
    """The run ends here; the text says why."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """All nodes, the words of the restart command, and how long to wait."""

    nodes: Sequence[Node]
    command: Sequence[str]
    wait_seconds: float
    settle_seconds: float

    def in_order(self) -> list[Node]:
        """Those that are not ready, then the others as they were given."""
        return sorted(self.nodes, key=lambda node: node.unready() is None)

    def words_for(self, node: Node) -> list[str]:
        """The restart command for a node. Split before it is filled in: a name is always one word."""
        remote = node.remote
        return [word.format(name=node.name, host=remote.host, port=remote.port or "") for word in self.command]

    def run(self) -> None:
        """Restart them all. Raises Stopped."""
        order = self.in_order()
        for number, node in enumerate(order):
            if number:
                time.sleep(self.settle_seconds)
            self._check_others(node)
            self._restart(node)

    def rehearse(self) -> None:
        """Say what `run` would do, and whether it could begin. Raises Stopped."""
        order = self.in_order()
        for node in order:
            reason = node.unready()
            click.echo(f"{node.name}: {'ready' if reason is None else f'not ready ({reason})'}")
            click.echo(f"  would run: {shlex.join(self.words_for(node))}")
        self._check_others(order[0])

    def _check_others(self, node: Node) -> None:
        for other in self.nodes:
            reason = None if other is node else other.unready()
            if reason is not None:
                raise Stopped(f"{other.name} is not ready ({reason}): {node.name} has to stay")

    def _restart(self, node: Node) -> None:
        words = self.words_for(node)
        click.echo(f"{node.name}: {shlex.join(words)}")
        began = time.monotonic()
        try:
            code = subprocess.run(words, stdin=subprocess.DEVNULL, check=False).returncode  # noqa: S603 (the operator's own)
        except OSError as error:
            raise Stopped(f"{node.name}: {words[0]}: {error.strerror}") from None
        if code != 0:
            raise Stopped(f"{node.name}: the restart command ended with {code}")
        self._wait(node, began)
        click.echo(f"{node.name}: ready after {time.monotonic() - began:.1f} s")

    def _wait(self, node: Node, began: float) -> None:
        """Until a process that was started since says that it is ready. The command may return before it stopped."""
        end = time.monotonic() + self.wait_seconds
        while (reason := self._not_back(node, began)) is not None:
            if time.monotonic() > end:
                raise Stopped(f"{node.name} did not come back within {self.wait_seconds:g} s ({reason})")
            time.sleep(POLL_SECONDS)

    @staticmethod
    def _not_back(node: Node, began: float) -> str | None:
        reason = node.unready()
        if reason is not None:
            return reason
        try:
            age = node.age_seconds()
        except (OSError, http.client.HTTPException) as error:
            return describe(error)
        # A process from before the restart is older than it.
        return "it was not restarted" if age > time.monotonic() - began + ROUNDING_SECONDS else None


def _nodes(_context: click.Context, _option: click.Parameter, values: tuple[str, ...]) -> list[Node]:
    nodes = []
    for value in values:
        try:
            nodes.append(Node.parse(value))
        except InvalidAddress as error:
            raise click.BadParameter(f"{redact(value)!r} {error}") from None
    if len({node.name for node in nodes}) < len(nodes):
        raise click.BadParameter("each node once")
    return nodes


def _words(_context: click.Context, _option: click.Parameter, value: str) -> list[str]:
    try:
        words = shlex.split(value)
        for word in words:
            word.format(name="", host="", port="")
    except (ValueError, LookupError, AttributeError):
        raise click.BadParameter("must be a command line; {name}, {host} and {port} are filled in") from None
    if not words:
        raise click.BadParameter("must not be empty")
    return words


@click.command("rolling-restart")
@click.argument("nodes", nargs=-1, required=True, callback=_nodes, metavar="PORT|NAME=URL...")
@click.option(
    "--restart",
    "command",
    default="systemctl restart ringcast@{name}",
    show_default=True,
    callback=_words,
    metavar="COMMAND",
    help="What restarts a node, without a shell; {name}, {host} and {port} are the node's.",
)
@click.option(
    "--wait-seconds",
    type=click.FloatRange(min=0),
    default=120.0,
    show_default=True,
    help="Longest time until a node is ready again, after the command has returned.",
)
@click.option(
    "--settle-seconds",
    type=click.FloatRange(min=0),
    default=5.0,
    show_default=True,
    help="Time between two nodes; a node's readers come back within 5 s.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be done, and whether it could begin.")
def rolling_restart(
    nodes: list[Node], command: list[str], wait_seconds: float, settle_seconds: float, dry_run: bool
) -> None:
    """Restart nodes one by one, each only while all others are ready; stop at the first that does not come back."""
    rollout = Rollout(nodes, command, wait_seconds, settle_seconds)
    try:
        if dry_run:
            rollout.rehearse()
        else:
            rollout.run()
    except Stopped as stopped:
        click.echo(f"stopped: {stopped}", err=True)
        sys.exit(EXIT_STOPPED)
