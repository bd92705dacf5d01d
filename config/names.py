"""Names that settings and command line share. Light: a client command need not load the settings for them."""

from __future__ import annotations

import re

CHANNEL_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}", re.ASCII)
