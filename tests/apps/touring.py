"""Tours of pages of docs/apps, walked as a reader walks them: blocks of commands, run by bash as they are written.

Owns the shells of a tour and what is started in them, and ends all of it. Must know no application. Invariants: a block
is run as it stands but for the node's port, and for addresses that the test gives; `make run` starts a node with the
settings that bash hands to `make`; each block of commands of a page, and each output that its tour shows, is taken once
and in order, and at the end none is left. Cost: a scratch folder, a process for each shell, and one for the node.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import textwrap
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from tests.harness.process import ROOT, Node, free_port, wait_until

ANSWER_SECONDS = 30
TOUR = "A tour of five minutes"
# In place of the real one: says with which settings a node is wanted.
MAKE = 'make() { [ "$*" = run ] && env -0 >wanted.part && mv wanted.part wanted; }'

_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
# Of the moment, as a page shows it and as it comes: times, ids, names of logs.
_MOMENT = [
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{3})?Z",
    r"[0-9a-z]{6}-[0-9a-f]{13}",
    r"\d{14}-[0-9a-f]{8}",
    r"\b[0-9a-f]{16,32}\b",
    r'(?<="epoch":")[0-9a-z]{6}',
]


def as_shown(text: str, varying: Sequence[str] = ()) -> list[re.Pattern[str]]:
    """What a page shows, as patterns of its paragraphs, between which there may be more. `…` is anything, and so are
    the values of the members `varying`."""
    paragraphs = re.split(r"\n(?:…?\n)+", text.strip("\n"))
    return [re.compile(f"^{_pattern(paragraph, varying)}$", re.MULTILINE) for paragraph in paragraphs]


def _pattern(text: str, varying: Sequence[str] = ()) -> str:
    anything = ["…", *(rf'(?<="{name}":)(?:"[^"]*"|[^,}}\]]+)' for name in varying)]
    patterns = {piece: piece for piece in _MOMENT} | {r"\b[0-9a-f]{4}…": "[0-9a-f]+"} | dict.fromkeys(anything, ".*")
    found, end = "", 0
    for piece in re.finditer("|".join(f"({one})" for one in patterns), text):
        found += re.escape(text[end : piece.start()]) + list(patterns.values())[(piece.lastindex or 1) - 1]
        end = piece.end()
    return found + re.escape(text[end:])


def answers_in(block: str) -> list[re.Pattern[str]]:
    """The answers that a block shows in its own comments."""
    return [re.compile(_pattern(answer)) for answer in re.findall(r"# (\{.*\})$", block, re.MULTILINE)]


class Said:
    """What a block's commands have said so far, those included that go on beside the shell."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def text(self) -> str:
        return self._path.read_text() if self._path.exists() else ""

    def shows(self, patterns: Sequence[re.Pattern[str]]) -> str:
        """Wait until this was said, in this order; all that was said."""

        def shown() -> bool:
            text, end = self.text, 0
            found = [(match := pattern.search(text, end)) and (end := match.end()) for pattern in patterns]
            return None not in found

        try:
            wait_until(shown, ANSWER_SECONDS)
        except AssertionError:
            wanted = "\n".join(pattern.pattern for pattern in patterns)
            raise AssertionError(f"this was to come:\n{wanted}\nand this came:\n{self.text[-4000:]}") from None
        return self.text


class Shell:
    """A bash. What it starts beside itself goes on until `kill`."""

    def __init__(self, folder: Path, environment: Mapping[str, str], name: str) -> None:
        self._folder = folder
        self._name = name
        self._blocks = 0
        nobody = subprocess.DEVNULL
        self._bash = subprocess.Popen(
            ["env", "--default-signal=INT", "bash"],  # it may be ignored where tests run in the background
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=nobody,
            stderr=nobody,
            start_new_session=True,
        )
        self._type(MAKE)

    def _type(self, line: str) -> None:
        assert self._bash.stdin is not None
        self._bash.stdin.write(f"{line}\n".encode())
        self._bash.stdin.flush()

    def _file(self, kind: str) -> Path:
        return self._folder / f"{self._name}-{self._blocks}.{kind}"

    def begin(self, block: str) -> Said:
        """Run commands, and wait for nothing."""
        self._blocks += 1
        self._file("commands").write_text(block)
        kinds = ("commands", "output", "errors", "part", "status")
        commands, output, errors, part, status = (shlex.quote(str(self._file(kind))) for kind in kinds)
        self._type(f"source {commands} </dev/null >{output} 2>{errors}; echo $? >{part}; mv {part} {status}")
        return Said(self._file("output"))

    def run(self, block: str, complaint: str = "") -> Said:
        """Run commands to their end, which must be a good one, without a complaint but this."""
        said = self.begin(block)
        self.end(complaint)
        return said

    def end(self, complaint: str = "") -> None:
        """Wait for the end of the commands."""
        status, errors = self._ended(), self._file("errors").read_text()
        assert status == "0\n", errors
        assert re.fullmatch(f"({complaint})?", errors.strip()), errors

    def interrupt(self) -> None:
        """Ctrl-C, and wait for what comes behind it. It goes to the foreground, which bash has started last."""
        children = Path(f"/proc/{self._bash.pid}/task/{self._bash.pid}/children").read_text().split()
        os.kill(int(children[-1]), signal.SIGINT)
        self._ended()

    def _ended(self) -> str:
        wait_until(self._file("status").exists, ANSWER_SECONDS, f"the end of {self._file('commands').read_text()}")
        return self._file("status").read_text()

    def kill(self) -> None:
        """End it and all that it has started: they are one group."""
        os.killpg(self._bash.pid, signal.SIGKILL)
        self._bash.communicate()


class Tour:
    """The tour of a page, and the commands of its other sections, without the blocks that begin with words of
    `not_run`. `addresses` says what stands for what is written there; the variables are in all shells."""

    def __init__(
        self, page: str, folder: Path, addresses: Mapping[str, object], not_run: Sequence[str], **variables: object
    ) -> None:
        port = free_port()
        self._page = (ROOT / "docs/apps" / f"{page}.md").read_text()
        blocks = _blocks(self._page)
        self._left = deque(block for block in blocks if not block[1].startswith(tuple(not_run)))
        assert len(blocks) - len(self._left) == len(not_run)
        self._folder = folder
        self._addresses = {"8888": port, **addresses}
        self._variables = {"RINGCAST_PORT": port, **variables}
        self._shells: list[Shell] = []
        self._node: Node | None = None
        (folder / ".venv").symlink_to(sys.prefix)
        (folder / ".curlrc").write_text("no-progress-meter\n")  # as on a terminal

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        for shell in self._shells:
            shell.kill()
        if self._node is not None and self._node.process is not None:
            self._node.kill()
        assert error is not None or not self._left, f"nobody went there: {self._left}"

    def shell(self) -> Shell:
        """A new one."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RINGCAST_")}
        environment |= {name: str(value) for name, value in self._variables.items()}
        environment["CURL_HOME"] = str(self._folder)
        self._shells.append(Shell(self._folder, environment, f"shell{len(self._shells)}"))
        return self._shells[-1]

    def commands(self) -> str:
        """The next block of commands."""
        language, text = self._left.popleft()
        assert language == "sh", text
        return self._here(text)

    def shown(self, *varying: str) -> list[re.Pattern[str]]:
        """The next output that the page shows."""
        language, text = self._left.popleft()
        assert not language, text
        return as_shown(self._here(text), varying)

    def _here(self, text: str) -> str:
        for written, real in self._addresses.items():
            text = re.sub(rf"(?<![\w.]){re.escape(written)}\b", str(real), text)
        return text

    def in_text(self, command: str) -> str:
        """A command that stands in the page's text."""
        assert f"`{command}`" in self._page
        return command

    def serve(self, shell: Shell) -> Node:
        """The next block of commands, which ends with `make run`: a node, in place of the one that ran before."""
        if self._node is not None:
            self._node.stop()
        commands = self.commands()
        assert commands.endswith("make run\n"), commands
        shell.run(commands, complaint="(?s:.*)")  # of what is started beside it
        wanted = (line.partition("=") for line in (self._folder / "wanted").read_text().split("\0"))
        settings = {name[9:].lower(): value for name, _, value in wanted if name.startswith("RINGCAST_")}
        self._node = Node(self._folder, port=int(settings.pop("port")), **settings)
        return self._node.start()


def _blocks(page: str) -> list[tuple[str, str]]:
    """The commands and outputs of a tour, then the commands of other sections: each the block's language and text."""
    found = []
    for section in page.split("\n## ")[1:]:
        blocks = [(language, textwrap.dedent(text)) for _, language, text in _FENCE.findall(section)]
        found += [block for block in blocks if section.startswith(TOUR) or block[0] == "sh"]
    return found
