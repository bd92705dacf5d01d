"""An issuer of tokens like Google's, envelopes as Google pushes them, and what stands between the emulator, which sends
no tokens, and a node, which wants them."""

from __future__ import annotations

import base64
import http.client
import itertools
import json
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

AUDIENCE = "https://events.example.com/bridges/pubsub/p"
EMAIL = "pusher@ringcast-tests.iam.gserviceaccount.com"
ISSUER = "https://accounts.google.com"
SUBSCRIPTION = "projects/ringcast-tests/subscriptions/orders"
KEY_ID = "7d680d8c70d44e947133cbd499ebc1a61c3d5abc"
KEY = rsa.generate_private_key(65537, 2048)
# Of the same issuer, for something else.
EC_KEY = ec.generate_private_key(ec.SECP256R1())
EC_KEY_ID = "ec"
PATH = "/bridges/pubsub/p"


def claims(**changes: object) -> dict[str, object]:
    """The claims of a push, as Google makes them; None leaves one out."""
    now = int(time.time())
    given: dict[str, object] = {
        "aud": AUDIENCE,
        "azp": "113774264463038321964",
        "email": EMAIL,
        "email_verified": True,
        "exp": now + 3600,
        "iat": now,
        "iss": ISSUER,
        "sub": "113774264463038321964",
    } | changes
    return {name: value for name, value in given.items() if value is not None}


def token(key: Any = KEY, algorithm: str = "RS256", key_id: str = KEY_ID, **changes: object) -> str:
    """A token as Google signs it."""
    return jwt.encode(claims(**changes), key, algorithm, {"kid": key_id})


def envelope(message_id: str, body: str = "", **fields: Any) -> dict[str, Any]:
    """What Google pushed, recorded; its fields come in both spellings."""
    message: dict[str, Any] = {
        "attributes": {"order": "7"},
        "data": base64.b64encode(body.encode()).decode(),
        "messageId": message_id,
        "message_id": message_id,
        "publishTime": "2026-02-19T15:06:28.103Z",
        "publish_time": "2026-02-19T15:06:28.103Z",
    }
    return {"message": message | fields, "subscription": SUBSCRIPTION}


class _Server:
    """An HTTP server on loopback in a thread; `answer` gives status and body."""

    def __init__(self) -> None:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._reply(b"")

            def do_POST(self) -> None:
                self._reply(self.rfile.read(int(self.headers.get("Content-Length", "0"))))

            def _reply(self, body: bytes) -> None:
                status, content = outer.answer(self.path, body)
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Tests are silent."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def answer(self, path: str, body: bytes) -> tuple[int, bytes]:
        raise NotImplementedError

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class Accounts(_Server):
    """Where the issuer's keys are."""

    def __init__(self) -> None:
        super().__init__()
        self.url = f"http://127.0.0.1:{self.port}/keys"
        self.fetches = 0

    def answer(self, path: str, body: bytes) -> tuple[int, bytes]:
        self.fetches += 1
        entries = [
            json.loads(jwt.get_algorithm_by_name(algorithm).to_jwk(key)) | {"kid": key_id, "use": "sig"}
            for algorithm, key, key_id in (
                ("RS256", KEY.public_key(), KEY_ID),
                ("ES256", EC_KEY.public_key(), EC_KEY_ID),
            )
        ]
        return 200, json.dumps({"keys": entries}).encode()


class Signing(_Server):
    """Passes pushes on to nodes in turn, each with a token, and their answers back."""

    def __init__(self, ports: Sequence[int], path: str = PATH) -> None:
        super().__init__()
        self.url = f"http://127.0.0.1:{self.port}{path}"
        self.bodies: list[bytes] = []
        self._ports = itertools.cycle(ports)
        self._token = token()

    def answer(self, path: str, body: bytes) -> tuple[int, bytes]:
        self.bodies.append(body)
        connection = http.client.HTTPConnection("127.0.0.1", next(self._ports), timeout=10)
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._token}"}
        try:
            connection.request("POST", path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            return 502, b""
        finally:
            connection.close()
