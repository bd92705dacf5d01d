"""A real emulator of Google Pub/Sub on a free port in a scratch folder, started and stopped by its process id, and a
publisher. It is a Java program that comes with the Google Cloud SDK, and keeps everything in memory: what it held is
gone when it is killed.
"""

from __future__ import annotations

import base64
import http.client
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.harness.process import free_port, wait_until

PROJECT = "ringcast-tests"
_SDKS = ("/usr/lib/google-cloud-sdk", "/usr/share/google-cloud-sdk", "/opt/google-cloud-sdk", "~/google-cloud-sdk")


def find_emulator() -> Path:
    """The emulator's program. Skips the test where there is none: it can't be installed from Debian or PyPI."""
    gcloud = shutil.which("gcloud")
    roots = [*(Path(sdk).expanduser() for sdk in _SDKS), *([Path(gcloud).resolve().parents[1]] if gcloud else [])]
    found = [jar for root in roots for jar in root.glob("platform/pubsub-emulator/lib/cloud-pubsub-emulator-*.jar")]
    if not found or shutil.which("java") is None:
        pytest.skip("no Pub/Sub emulator here: install google-cloud-cli-pubsub-emulator and a Java runtime")
    return found[0]


def subscription_path(name: str) -> str:
    """A subscription's whole name."""
    return f"projects/{PROJECT}/subscriptions/{name}"


class PubSubEmulator:
    """One emulator."""

    def __init__(self, folder: Path) -> None:
        self.program = find_emulator()
        self.port = free_port()
        self.folder = folder / f"pubsub-{self.port}"
        self.folder.mkdir(exist_ok=True)
        self.log_path = self.folder / "emulator.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> PubSubEmulator:
        """Start and wait until it answers. Java itself, and not the script before it: so its process id is ours."""
        java = ["java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", f"-Duser.home={self.folder}"]
        command = [*java, "-jar", str(self.program), "--host=127.0.0.1", f"--port={self.port}"]
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        wait_until(self._answers, 30, f"the Pub/Sub emulator on port {self.port} (see {self.log_path})")
        return self

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log_path.read_text()
        try:
            self.ask("GET", f"/v1/projects/{PROJECT}/topics")
        except OSError:
            return False
        return True

    def kill(self) -> None:
        """SIGKILL and wait."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> None:
        """End it if it runs."""
        if self.process is not None and self.process.poll() is None:
            self.kill()

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """What the emulator answers to a call of Pub/Sub's REST interface."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, json.dumps(body or {}), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
            assert answer.status in (200, 404), text
            return json.loads(text or b"{}")
        finally:
            connection.close()

    def make(self, topic: str, *subscriptions: str, ordered: bool = False, push_to: str | None = None) -> None:
        """Make a topic and its subscriptions, with the shortest deadline there is."""
        whole = f"projects/{PROJECT}/topics/{topic}"
        self.ask("PUT", f"/v1/{whole}")
        push = {"pushConfig": {"pushEndpoint": push_to}} if push_to else {}
        for name in subscriptions:
            wanted = {"topic": whole, "ackDeadlineSeconds": 10, "enableMessageOrdering": ordered} | push
            self.ask("PUT", f"/v1/{subscription_path(name)}", wanted)

    def publish(self, topic: str, *bodies: str, key: str = "", **attributes: str) -> list[str]:
        """Publish in this order; the messages' ids."""
        messages = [
            {"data": base64.b64encode(body.encode()).decode(), "attributes": attributes}
            | ({"orderingKey": key} if key else {})
            for body in bodies
        ]
        answer = self.ask("POST", f"/v1/projects/{PROJECT}/topics/{topic}:publish", {"messages": messages})
        return list(answer["messageIds"])

    def waiting(self, subscription: str) -> list[str]:
        """What would be given to somebody who asks now."""
        wanted = {"maxMessages": 1000, "returnImmediately": True}
        answer = self.ask("POST", f"/v1/{subscription_path(subscription)}:pull", wanted)
        return [base64.b64decode(one["message"].get("data", "")).decode() for one in answer.get("receivedMessages", ())]
