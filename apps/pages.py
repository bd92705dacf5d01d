"""Pages of applications: files of a folder beside the code, served as they are.

Owns which files there are (read once, at start) and their headers: an application's own, and those that all pages
share (`apps/page/`: the look, and what follows a stream). Must never know what a page shows. A page has no script of
others and no inline script, so its policy forbids both.
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


def shared_endpoints() -> Sequence[Endpoint]:
    """Endpoints for what all pages share, at `/apps/`. Once for a server, however many applications it runs."""
    return _endpoints("apps", "/apps/")


def page_endpoints(package: str, name: str) -> Sequence[Endpoint]:
    """Endpoints for the files in `page/` of an application's package: `/apps/NAME/` is index.html."""
    return _endpoints(package, f"/apps/{name}/")


def _endpoints(package: str, folder: str) -> Sequence[Endpoint]:
    endpoints = []
    for file in sorted((resources.files(package) / "page").iterdir(), key=lambda found: found.name):
        kind = file.name.rpartition(".")[2]
        if kind in _TYPES:
            path = folder if file.name == "index.html" else folder + file.name
            endpoints.append(_endpoint(path, File(file.read_bytes(), _TYPES[kind])))
    return endpoints


def _endpoint(path: str, file: File) -> Endpoint:
    async def run(_: Call) -> Reply:
        return file

    return Endpoint("GET", path, run, "A file of the page.", tag=PAGES)
