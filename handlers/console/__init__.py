"""The console: the page at `/`, without a build step.

Owns the files and their headers. They are read once, at import: the page can't fail while the server runs. A file that
is put into this folder is served under `/console/`, if its kind is in the table.
"""

from __future__ import annotations

from pathlib import Path

from handlers.answers import COMMON_HEADERS
from server.exchange import Response

INDEX = "index.html"
_FOLDER = Path(__file__).parent
_KINDS = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}
CONSOLE_FILES = {path.name: _KINDS[path.suffix] for path in sorted(_FOLDER.iterdir()) if path.suffix in _KINDS}
# No inline script or style, nothing from elsewhere: an event's data could not run even if it became markup.
_POLICY = "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
_CONTENT = {name: (_FOLDER / name).read_bytes() for name in (INDEX, *CONSOLE_FILES)}


def console_file(name: str) -> Response | None:
    """The page ("" for the index) or one of its files; None if there is no such file."""
    content = _CONTENT.get(name or INDEX)
    if content is None:
        return None
    media_type = CONSOLE_FILES.get(name, "text/html; charset=utf-8")
    headers = [*COMMON_HEADERS, ("Content-Security-Policy", _POLICY), ("X-Frame-Options", "DENY")]
    return Response(200, content, media_type, headers)
