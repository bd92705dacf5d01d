"""A web server of this process, in a thread of its own, that answers as a test wants it. Knows no test."""

from __future__ import annotations

import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class LocalSite:
    """Serves on a free port of this machine until it is closed; over TLS with a `context`. What fails while it answers
    is printed, unless `forgiving`."""

    def __init__(
        self, answers: type[BaseHTTPRequestHandler], *, context: ssl.SSLContext | None = None, forgiving: bool = False
    ) -> None:
        answers.log_message = lambda *_: None  # type: ignore[method-assign]
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), answers)
        self._server.daemon_threads = True
        if forgiving:
            self._server.handle_error = lambda *_: None  # type: ignore[method-assign]
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port: int = self._server.server_address[1]
        self.root = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)
