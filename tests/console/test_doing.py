"""The console's forms, command lines and policy."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import jwt

from tests.conftest import StartNode
from tests.console.conftest import OpenConsole
from tests.harness.process import TOKEN_SECRET, Node


def test_a_publish_through_the_form_shows_up(machine_node: Node, console: OpenConsole) -> None:
    view = console(machine_node, "formed")
    view.wait_state("live")
    fields = {"channel": "formed", "topic": "greetings", "type": "greeting", "data": 'two\nlines of "text"'}
    for name, text in fields.items():
        view.fill(f"publish-{name}", text)
    view.submit("publish-form")
    view.wait_row("greeting", 'two lines of "text"')
    view.wait_text("publish-result", "Published as ")
    view.wait_text("cursor", view.text("publish-result").removeprefix("Published as "))


def test_after_a_publish_elsewhere_the_page_offers_to_watch_there(machine_node: Node, console: OpenConsole) -> None:
    view = console(machine_node)
    view.fill("publish-channel", "elsewhere")
    view.submit("publish-form")
    view.wait_text("publish-watch", "Watch elsewhere")
    view.press("publish-watch")
    view.wait_row("message", "Hello from the console")
    assert view.value("location.search") == "?channel=elsewhere"


def test_a_refused_publish_says_what_was_wrong(machine_node: Node, console: OpenConsole) -> None:
    view = console(machine_node, "refused")
    view.fill("publish-type", "gap")
    view.submit("publish-form")
    view.wait_text("publish-result", "Refused (400): type 'gap' is reserved")


def test_the_command_lines_work_in_a_shell(machine_node: Node, console: OpenConsole) -> None:
    view = console(machine_node, "typed")
    view.wait_text("commands", "/channels/typed/events")
    shown = "document.querySelectorAll('#commands .command:not([hidden]) code')"
    commands = view.value(f"[...{shown}].map(code => code.textContent)")
    watch, publish, *_, stats = commands
    assert '"ids"' in _shell(publish)
    view.wait_row("message", "Hello from a shell")
    assert '"connections"' in _shell(stats)
    assert "event: hello" in _shell(f"{watch} --max-time 3")


def _shell(command: str) -> str:
    done = subprocess.run(["sh", "-c", f"{command} --silent"], capture_output=True, text=True, timeout=20, check=False)
    assert done.stdout, done.stderr
    return done.stdout


def test_a_token_is_sent_in_headers_and_stands_in_no_address(node: StartNode, console: OpenConsole) -> None:
    server = node(jwt_secret=TOKEN_SECRET)
    rights = {"publish": ["*"], "subscribe": ["*"]}
    token = jwt.encode({"exp": time.time() + 600, "mercure": rights, "ringcast": {}}, TOKEN_SECRET, "HS256")
    view = console(server, "main")
    assert "a valid token is needed" in view.wait_state("ended")
    view.fill("token", token)
    view.submit("watch-form")
    view.wait_state("live")
    view.submit("publish-form")
    view.wait_row("message", "Hello from the console")
    assert not [address for address in view.addresses if token in address or "authorization" in address]
    view.wait_text("commands", "$RINGCAST_TOKEN")
    assert token not in view.value("document.documentElement.outerHTML")
    assert view.value("localStorage.length + sessionStorage.length + document.cookie.length") == 0


def test_nothing_inline_runs_and_nothing_comes_from_elsewhere(machine_node: Node, console: OpenConsole) -> None:
    view = console(machine_node)
    view.wait_state("live")
    assert all(address.startswith(f"{machine_node.url}/") for address in view.addresses)
    view.page.run("document.body.insertAdjacentHTML('beforeend', '<b onclick=owned=1>')")
    view.page.run("document.body.lastChild.click()")
    script = "Object.assign(document.createElement('script'), {textContent: 'window.owned = 1'})"
    view.page.run(f"document.body.append({script})")
    view.page.run("document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.2:9/x.png'}))")
    view.page.wait("window.complaints.filter(text => text.startsWith('policy')).length === 3")
    assert view.value("window.owned === undefined")
    view.page.run("window.complaints = []")


def test_every_file_is_served_with_the_policy_and_its_type(machine_node: Node, console: OpenConsole) -> None:
    files = {address.removeprefix(machine_node.url) for address in console(machine_node).addresses}
    files = {"/"} | {path for path in files if path.startswith("/console/")}
    assert {"/", "/console/console.css", "/console/console.js", "/console/rows.js"} <= files
    for path in files:
        status, headers, _ = machine_node.get(path)
        assert (status, headers["x-content-type-options"]) == (200, "nosniff")
        assert "default-src 'self'" in headers["content-security-policy"]


def test_the_pages_of_applications_are_a_click_away(node: StartNode, console: OpenConsole, tmp_path: Path) -> None:
    server = node(apps="jobs,monitors", database=f"sqlite:{tmp_path}/data.db")
    view = console(server)
    view.page.wait("document.querySelectorAll('#applications a').length === 2")
    links = view.value("[...document.querySelectorAll('#applications a')].map((link) => link.href)")
    assert links == [f"{server.url}/apps/jobs/", f"{server.url}/apps/monitors/"]
