"""Pages of applications: files of a folder beside the code, served as they are.

Owns which files there are (read once, at start) and their headers. Must never know what a page shows. A page has no
script of others and no inline script, so its policy forbids both.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

from handlers.endpoints import Call, Endpoint, Reply
from server.exchange import Response

PAGES = "pages"
_TYPES = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = [
    ("Content-Security-Policy", _POLICY),
    ("Cache-Control", "no-cache"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
]


class File(Reply):
    """A file as an answer."""

    def __init__(self, body: bytes, content_type: str) -> None:
        super().__init__()
        self._response = Response(200, body, content_type, list(_HEADERS))

    def response(self) -> Response:
        """As it goes out."""
        kept = self._response
        return Response(kept.status, kept.body, kept.content_type, list(kept.headers))


def page_endpoints(package: str, name: str) -> Sequence[Endpoint]:
    """Endpoints for the files in `page/` of an application's package: `/apps/NAME/` is index.html."""
    folder = resources.files(package) / "page"
    endpoints = []
    for file in sorted(folder.iterdir(), key=lambda found: found.name):
        kind = file.name.rpartition(".")[2]
        if kind in _TYPES:
            path = f"/apps/{name}/" if file.name == "index.html" else f"/apps/{name}/{file.name}"
            endpoints.append(_endpoint(path, File(file.read_bytes(), _TYPES[kind])))
    return endpoints


def _endpoint(path: str, file: File) -> Endpoint:
    async def run(_: Call) -> Reply:
        return file

    return Endpoint("GET", path, run, "A file of the page.", tag=PAGES)
