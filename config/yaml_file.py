"""The settings file: YAML read strictly.

Owns the dialect: YAML 1.2's booleans (`true`, `false`) and numbers, no duplicate keys, one mapping. YAML 1.1, which
PyYAML implements, reads the value of `sqlite_synchronous: OFF` as false, `22:30` as 1350, and of two equal keys takes
the last. Must never know which settings exist.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from config.problems import ConfigError, Problem

_QUOTED = re.compile(r"(['\"]).*\1", re.DOTALL)


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader without YAML 1.1's surprises."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, f"the name {key} is not text", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key} is there twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def _decimal(loader: _StrictLoader, node: yaml.ScalarNode) -> int:
    # YAML 1.1 reads 0100 as 64.
    return int(str(loader.construct_scalar(node)).replace("_", ""))


_StrictLoader.add_constructor("tag:yaml.org,2002:int", _decimal)
# A table of its own: SafeLoader's is shared by everybody in the process.
_StrictLoader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|false", "tf"),
    ("null", r"~|null|", ["~", "n", ""]),
    ("int", r"[-+]?[0-9][0-9_]*", "-+0123456789"),
    ("float", r"[-+]?(?:[0-9][0-9_]*)?\.?[0-9]+(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
):
    _StrictLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})$"), list(_first))


def read(path: Path) -> dict[str, Any]:
    """The file's mapping; a name without a value is left out. Raises ConfigError."""
    source = f"file {path}"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        raise ConfigError([Problem("config", source, f"cannot be read: {reason}")]) from None
    try:
        content = yaml.load(text, _StrictLoader)  # noqa: S506 (a SafeLoader)
    except yaml.YAMLError as error:
        raise ConfigError([Problem("config", source, _where(error))]) from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError([Problem("config", source, "must hold lines of the form `name: value`")])
    return {name: value for name, value in content.items() if value is not None}


def _where(error: yaml.YAMLError) -> str:
    """What is wrong and in which line; never what stands there: an unquoted secret such as `!abc` is an error, too."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        problem = _QUOTED.sub("…", error.problem or "is not valid YAML")
        return f"line {error.problem_mark.line + 1}: {problem} (text with special characters needs quotes)"
    return "is not valid YAML"
