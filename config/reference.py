"""The reference: docs/settings.md, written by `python -m config.reference`.

Owns the page's form only; every fact stands beside the setting it is about. A test fails when the page is older than
the settings.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic.fields import FieldInfo

from config.channels import ChannelPolicySettings
from config.display import NOT_SET, default, plain
from config.fields import GIB, KIB, MAX_BYTES, MAX_COUNT, MIB, YEAR_SECONDS, Group, Unit
from config.settings import GROUPS, Settings
from config.sources import variable

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"

_HEAD = """\
# Settings

<!-- Written by `python -m config.reference`; edit the settings in config/, not this page. -->

Four sources, each over the one before: defaults, a YAML file (`--config FILE` or `RINGCAST_CONFIG`), the environment,
the command line. `ringcast check-config` prints every value and where it came from, and ends with exit code 2 if one
cannot be used.

- In the file a setting has the name below; in the environment it is `RINGCAST_` and the name in capitals.
- A list is separated by commas in the environment. A later source replaces a value whole, lists and `channels` too.
- An empty variable, or a name without a value in the file, counts as not given.
- An unknown name, in the file or with `RINGCAST_`, is an error. (`RINGCAST_TOKEN` and `RINGCAST_URL` belong to
  `ringcast publish` and `ringcast tail`. Kubernetes sets variables of this form for a service called `ringcast`: use
  another name, or `enableServiceLinks: false`.)
- A change takes a restart.

[config/ringcast.yaml](../config/ringcast.yaml) is a file to start from.
"""

_CHANNEL_HEAD = """\
## Overrides of a channel

Under `channels`, by the channel's name, each of these may be different from the setting of the same name:

```yaml
channels:
  prices:
    heartbeat_style: event
    lag_events: 100
```

| override | unit | meaning |
|---|---|---|
"""


def page() -> str:
    """The whole page."""
    groups = "\n".join(_group(group) for group in GROUPS)
    return f"{_HEAD}\n{groups}\n{_CHANNEL_HEAD}{''.join(_channel_rows())}"


def _group(group: type[Group]) -> str:
    introduction = " ".join((group.__doc__ or "").split())
    rows = "".join(_row(name) for name in Settings.model_fields if name in group.__annotations__)
    return (
        f"## {group.__name__}\n\n{introduction}\n\n"
        f"| name, variable | default | unit | 0 means | meaning, and why |\n|---|---|---|---|---|\n{rows}"
    )


def _row(name: str) -> str:
    info = Settings.model_fields[name]
    explained = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    cells = (
        f"`{name}` `{variable(name)}`",
        _default(name, info),
        _unit(info),
        str(explained.get("zero", "")) or _zero(info),
        " ".join(text for text in (info.description, str(explained.get("why", ""))) if text),
    )
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |\n"


def _default(name: str, info: FieldInfo) -> str:
    value = default(name)
    if value is None:
        return NOT_SET
    text = plain(value)
    size = _size(value) if _has_unit(info, "bytes") and isinstance(value, int) else ""
    return "none" if text == "none" and value in ([], {}) else f"`{text}`{size}"


def _size(count: int) -> str:
    for step, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if count and count % step == 0:
            return f" ({count // step} {name})"
    return ""


def _has_unit(info: FieldInfo, name: str) -> bool:
    return any(isinstance(item, Unit) and item.name == name for item in info.metadata)


def _unit(info: FieldInfo) -> str:
    """The unit with its range, or the choices, or the kind of value."""
    units = [item.name for item in info.metadata if isinstance(item, Unit)]
    if units:
        return f"{units[0]}, {_range(info)}"
    kind = info.annotation
    if get_origin(kind) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(kind))
    if kind is bool:
        return "`true`, `false`"
    origin = get_origin(kind)
    return "list" if origin is list else "mapping" if origin is dict else "text"


def _range(info: FieldInfo) -> str:
    bounds = {type(item): item for item in info.metadata}
    low, above, high = bounds.get(Ge), bounds.get(Gt), bounds[Le]
    start = f"{low.ge}" if isinstance(low, Ge) else f"above {above.gt}" if isinstance(above, Gt) else ""
    return f"{start} to {_limit(high.le)}"


def _limit(number: object) -> str:
    """A bound in digits, or as a power if it is only there to catch a slip."""
    powers = {MAX_COUNT: "10^12", MAX_BYTES: "2^50", YEAR_SECONDS: "a year"}
    return powers.get(number, str(number)) if isinstance(number, int) else str(number)


def _zero(info: FieldInfo) -> str:
    """What 0 means for a number that does not explain it: it is outside the range."""
    return "not allowed" if any(isinstance(item, Unit) for item in info.metadata) else ""


def _channel_rows() -> Iterator[str]:
    for name, info in ChannelPolicySettings.model_fields.items():
        common = Settings.model_fields.get(name)
        meaning = f"as `{name}`" if common else f"{info.description} Default `{info.default}`."
        yield f"| `{name}` | {_unit(common or info)} | {meaning} |\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
