"""Reading: what a job's source holds, from a file of one folder or from a URL.

Owns where a source may lead. A name is a file of the operator's folder, with or without its ending; no name leads out
of it, for a name has no separators, a link is not followed, and the file is opened by the folder's own handle. A URL
goes through bridges/outbound.py, with all of its rules, redirects included. Must never know what is done with a text.

Cost: a thread while a file is read.
"""

from __future__ import annotations

import asyncio
import os
import re
import stat
from typing import NamedTuple

from apps.jobs.extraction import HTML, PLAIN, READABLE, read_content_type
from apps.jobs.limits import PerMinute
from bridges.outbound import Outbound, OutboundFailed, OutboundRefused, PutOff

REDIRECTS = 3
# By the ending of a file's name; in this order they are tried for a name without one.
_TYPES = {".txt": PLAIN, ".md": "text/markdown", ".html": HTML[0], ".htm": HTML[0], ".xhtml": HTML[1]}
_NAME = re.compile(r"[^\W_][\w .+-]*")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


class Unreadable(Exception):
    """The source gives nothing to read. `reason` is for whoever named it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Content(NamedTuple):
    """What came, and what it is."""

    content: bytes
    content_type: str


class Sources:
    """`folder` "": there is none. At most `most_bytes` of a source are read; of one address `host_per_minute`."""

    def __init__(self, folder: str, outbound: Outbound, most_bytes: int, host_per_minute: int) -> None:
        self._folder = folder
        self._outbound = outbound
        self._most_bytes = most_bytes
        self._limit = PerMinute(host_per_minute)

    async def read(self, source: str) -> Content:
        """What a source holds. Raises Unreadable."""
        if _URL.match(source):
            return await self._of_url(source)
        return await asyncio.to_thread(self._of_file, source)

    async def _of_url(self, url: str) -> Content:
        try:
            answer = await self._outbound.get(url, redirects=REDIRECTS, permit=self._permit)
        except (OutboundRefused, OutboundFailed) as error:
            raise Unreadable(error.reason) from None
        if answer.status != 200:
            raise Unreadable(f"HTTP status {answer.status}")
        if answer.headers.get("content-encoding", "identity").lower() != "identity":
            raise Unreadable("it came packed, though nobody asked for that")
        content_type = answer.headers.get("content-type", "")
        if read_content_type(content_type)[0] not in READABLE:
            raise Unreadable("it is neither a page nor a text")
        return Content(answer.body, content_type)

    def _permit(self, address: str) -> None:
        if not self._limit.take(address):
            raise PutOff(f"this address is asked {self._limit.most} times a minute at most")

    def _of_file(self, name: str) -> Content:
        """Blocking."""
        if not self._folder:
            raise Unreadable("this worker reads no files: give a URL")
        if not _NAME.fullmatch(name):
            raise Unreadable("is neither a URL nor the name of a file")
        ending = os.path.splitext(name)[1].lower()
        names = [name] if ending in _TYPES else [name + ending for ending in _TYPES]
        try:
            folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            raise Unreadable("the worker's folder cannot be read") from None
        try:
            for one in names:
                content = self._opened(folder, one)
                if content is not None:
                    return Content(content, _TYPES[os.path.splitext(one)[1].lower()])
        finally:
            os.close(folder)
        raise Unreadable("there is no such file")

    def _opened(self, folder: int, name: str) -> bytes | None:
        # Without waiting: what is opened may be a pipe.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            file = os.open(name, flags, dir_fd=folder)
        except (OSError, ValueError):
            return None
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                return None
            with open(file, "rb", closefd=False) as opened:
                return opened.read(self._most_bytes)
        finally:
            os.close(file)
