"""The house: which way imports go, how long files and functions may be, and that the files around the source agree.

The rules are those of docs/architecture.md and CONTRIBUTING.md.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from setuptools import find_packages

ROOT = Path(__file__).parents[1]
LAYERS = ("config", "server", "handlers", "bridges", "apps", "ringcast")
# Pure: events, frames, and what decides about them. No loop, no socket, no clock.
PURE = (
    "channel",
    "endings",
    "event",
    "feed",
    "frames",
    "ids",
    "index",
    "log",
    "reader",
    "region",
    "ring",
    "selection",
    "selectors",
    "shards",
)
IMPURE = {
    "asyncio",
    "concurrent",
    "fcntl",
    "os",
    "select",
    "selectors",
    "signal",
    "socket",
    "subprocess",
    "threading",
    "time",
}
MAX_FILE_LINES = 500
SHORT_FILE_LINES = 150
LONG_FUNCTION_LINES = 35
SHORT_FUNCTION_LINES = 8


def sources(*folders: str) -> list[Path]:
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    assert found
    return [path for path in found if not {"node_modules", "results", "build"} & set(path.parts)]


EVERYTHING = sources(*LAYERS, "benchmarks", "tests")
PRODUCT = sources(*LAYERS)


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in PRODUCT}


def _is_for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def _nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes that run, functions' bodies included."""
    for child in ast.iter_child_nodes(node):
        if not _is_for_types_only(child):
            yield child
            yield from _nodes(child)


@cache
def imports_of(path: Path) -> frozenset[str]:
    """The modules that a file imports: of ours the module itself, of others the whole dotted name."""
    found: set[str] = set()
    for node in _nodes(tree_of(path)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            assert node.module is not None
            found.add(node.module)
            found.update(name for alias in node.names if (name := f"{node.module}.{alias.name}") in MODULES)
    return frozenset(found)


def layer_of(module: str) -> str:
    return module.partition(".")[0]


def functions(paths: list[Path]) -> Iterator[tuple[int, str]]:
    """Length in lines, and where, of every function."""
    for path in paths:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                yield node.end_lineno - node.lineno + 1, f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"


# --- imports


@pytest.mark.parametrize(
    ("part", "may"),
    [
        ("config", {"config"}),
        ("server.commands", {"config", "server"}),
        ("server", {"config", "server"}),
        ("handlers", {"config", "server", "handlers"}),
        ("bridges", {"config", "server", "handlers", "bridges"}),
        ("apps", {"config", "server", "handlers", "bridges", "apps"}),
        ("ringcast", {"server", "ringcast"}),
    ],
)
def test_imports_go_one_way(part: str, may: set[str]) -> None:
    wrong = [
        f"{module} imports {name}"
        for module, path in MODULES.items()
        if (module == part or module.startswith(part + ".")) and module != "server.serving"
        for name in sorted(imports_of(path))
        if layer_of(name) in {*LAYERS, "benchmarks", "tests"} - may
    ]
    assert wrong == []


def test_applications_do_not_know_each_other() -> None:
    wrong = [
        f"{module} imports {name}"
        for module, path in MODULES.items()
        if module.count(".") > 1 and layer_of(module) == "apps"
        for name in imports_of(path)
        if name.startswith("apps.") and name.count(".") > 1 and name.split(".")[1] != module.split(".")[1]
    ]
    assert wrong == []


def test_the_engine_imports_no_command() -> None:
    wrong = [
        module
        for module, path in MODULES.items()
        if layer_of(module) == "server" and not module.startswith("server.commands") and module != "server.__main__"
        for name in imports_of(path)
        if name.startswith("server.commands") or name == "server.__main__"
    ]
    assert wrong == []


def test_the_engine_knows_no_http_framework() -> None:
    """But for the key set's client, and for the one place that puts everything together."""
    users = {
        module
        for module, path in MODULES.items()
        if layer_of(module) in ("config", "server") and any(layer_of(name) == "tornado" for name in imports_of(path))
    }
    assert users <= {"server.serving", "server.keys"}
    assert not any(name.startswith("tornado.web") for name in imports_of(MODULES["server.keys"]))


def test_only_the_connection_of_handlers_to_tornado_knows_tornado() -> None:
    users = {
        module
        for module, path in MODULES.items()
        if layer_of(module) == "handlers" and any(layer_of(name) == "tornado" for name in imports_of(path))
    }
    assert users <= {
        "handlers.application", "handlers.begun_stream", "handlers.incoming", "handlers.rest",
        "handlers.stream_delegate",
    }  # fmt: skip


def test_no_import_runs_in_a_circle() -> None:
    ours = {module: {name for name in imports_of(path) if name in MODULES} for module, path in MODULES.items()}
    for module, names in ours.items():
        names.discard(module)
    left = dict(ours)
    while free := [module for module, names in left.items() if not names & left.keys()]:
        for module in free:
            del left[module]
    assert left == {}


@pytest.mark.parametrize("name", PURE)
def test_a_pure_module_touches_no_loop_no_socket_and_no_clock(name: str) -> None:
    used = {layer_of(imported) for imported in imports_of(MODULES[f"server.{name}"])}
    assert used & IMPURE == set()


def test_pure_modules_rest_on_pure_modules_alone() -> None:
    pure = {f"server.{name}" for name in PURE} | {"server.relay.protocol", "server"}
    for module in sorted(pure):
        used = {name for name in imports_of(MODULES[module]) if name in MODULES}
        assert used <= pure, module
    assert {layer_of(name) for name in imports_of(MODULES["server.relay.protocol"])} & IMPURE == set()


def test_nothing_of_the_product_knows_its_tests_or_benchmarks() -> None:
    for path in PRODUCT:
        assert not {layer_of(name) for name in imports_of(path)} & {"tests", "benchmarks", "pytest"}, path


# --- sizes and names


@pytest.mark.parametrize("path", EVERYTHING, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_says_what_it_is_and_is_not_too_long(path: Path) -> None:
    assert ast.get_docstring(tree_of(path)) or not path.read_text(), "no docstring"
    assert len(path.read_text().splitlines()) <= MAX_FILE_LINES


def test_most_files_are_short() -> None:
    lengths = [len(path.read_text().splitlines()) for path in PRODUCT]
    assert sum(length < SHORT_FILE_LINES for length in lengths) >= len(lengths) / 2


def test_most_functions_are_short_and_few_are_long() -> None:
    found = list(functions(PRODUCT))
    long = sorted((one for one in found if one[0] >= LONG_FUNCTION_LINES), reverse=True)
    assert len(long) <= len(found) * 0.05, long
    assert sum(length < SHORT_FUNCTION_LINES for length, _ in found) >= len(found) / 2


def names_in(path: Path) -> Iterator[str]:
    yield path.stem
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name


def test_every_name_says_what_it_names() -> None:
    vague = re.compile(r"(?i)util|helper|manager")
    folders = {parent.name for path in EVERYTHING for parent in path.relative_to(ROOT).parents}
    names = {name for path in EVERYTHING for name in names_in(path)} | folders
    assert [name for name in sorted(names) if vague.search(name)] == []


def test_a_todo_is_not_left_in_the_source() -> None:
    marks = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
    assert [str(path) for path in PRODUCT if marks.search(path.read_text())] == []


# --- packaging


def setup_arguments() -> dict[str, ast.expr]:
    calls = (node for node in ast.walk(tree_of(ROOT / "setup.py")) if isinstance(node, ast.Call))
    [call] = [one for one in calls if ast.unparse(one.func) == "setup"]
    return {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}


def test_every_package_is_installed() -> None:
    found = setup_arguments()["packages"]
    assert isinstance(found, ast.Call)
    installed = set(find_packages(str(ROOT), include=ast.literal_eval(found.keywords[0].value)))
    folders = {module_of(path.parent / "__init__.py") for path in PRODUCT}
    assert installed == folders


def test_every_file_that_is_no_module_is_installed_too() -> None:
    patterns = ast.literal_eval(setup_arguments()["package_data"])
    for folder in (ROOT / layer for layer in LAYERS):
        for path in folder.rglob("*"):
            if path.is_file() and path.suffix not in (".py", ".pyc"):
                folder_of = next(parent for parent in path.parents if (parent / "__init__.py").exists())
                package = ".".join(folder_of.relative_to(ROOT).parts)
                assert any(path.match(pattern) for pattern in patterns.get(package, [])), path


def test_the_command_is_installed() -> None:
    scripts = ast.literal_eval(setup_arguments()["entry_points"])["console_scripts"]
    assert scripts == ["ringcast=server.__main__:main"]


def wanted(name: str) -> set[str]:
    """The requirements of one list, without what it includes."""
    lines = (ROOT / "requirements" / f"{name}.in").read_text().split("\n")
    return {line for line in map(str.strip, lines) if line and not line.startswith(("#", "-"))}


def project(line: str) -> str:
    """The name in a requirement."""
    return re.split(r"[<>=\[]", line)[0].lower()


def test_what_is_installed_with_the_package_is_what_is_locked_for_running() -> None:
    needed = set(ast.literal_eval(setup_arguments()["install_requires"]))
    only_locked = {project(line) for line in wanted("run") - needed}
    assert only_locked <= {"setuptools"}  # builds the package, and is not needed to run it
    assert needed <= wanted("run")


# What needs an extra, and is imported only where that is used.
WITH_PUBSUB = "pubsub_connection"


def test_what_an_extra_installs_is_locked_for_it() -> None:
    for name, needed in ast.literal_eval(setup_arguments()["extras_require"]).items():
        assert set(needed) == wanted(name)


def test_what_is_imported_is_required() -> None:
    known = {
        "jwt": "pyjwt",
        "yaml": "pyyaml",
        "annotated_types": "pydantic",
        "nats": "nats-py",
        "google": "google-cloud-pubsub",
        "grpc": "google-cloud-pubsub",
    }
    running = {project(line) for line in wanted("run")} | {"pydantic", "pydantic-core"}  # come with their settings
    for module, path in MODULES.items():
        required = running | ({"google-cloud-pubsub"} if module.endswith(WITH_PUBSUB) else set())
        for name in imports_of(path):
            top = layer_of(name)
            if top not in LAYERS and top not in sys.stdlib_module_names:
                assert known.get(top, top).replace("_", "-") in required, f"{path}: {top}"


@pytest.mark.parametrize("name", ["run", "pubsub", "dev", "bench"])
def test_lock_files_have_hashes_and_name_no_registry(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    assert not re.search(r"://|index-url|trusted-host|find-links|@ file|^-", text, re.MULTILINE)
    pins = re.findall(r"^(\S+?)==(\S+) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", text, re.MULTILINE)
    lines = [line for line in text.split("\n") if line and not line.startswith((" ", "#"))]
    assert len(pins) == len(lines) > 10
    locked = {re.split(r"[\[<]", pin[0])[0].lower().replace("_", "-") for pin in pins}
    assert {project(line) for line in wanted(name)} <= locked


def test_what_runs_is_locked_alike_for_tests_and_benchmarks() -> None:
    def pins(name: str) -> dict[str, str]:
        text = (ROOT / "requirements" / f"{name}.txt").read_text()
        return dict(re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.MULTILINE))

    running = pins("run")
    for name in ("pubsub", "dev", "bench"):
        others = pins(name)
        assert {package: others.get(package) for package in running} == running


# --- the files around


def makefile_targets() -> set[str]:
    text = (ROOT / "Makefile").read_text()
    [phony] = re.findall(r"^\.PHONY: (.+)$", text, re.MULTILINE)
    targets = set(re.findall(r"^([a-z-]+):", text, re.MULTILINE))
    assert set(phony.split()) <= targets, "phony targets that are not there"
    return targets


@pytest.mark.parametrize("target", ["run", "setup", "test", "lint", "bench", "bench-quick"])
def test_the_readme_shows_the_commands_that_the_makefile_has(target: str) -> None:
    assert target in makefile_targets()
    assert f"`make {target}`" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_documents_name_no_command_that_is_not_there(name: str) -> None:
    shown = set(re.findall(r"`make ([a-z-]+)`", (ROOT / name).read_text()))
    assert shown <= makefile_targets()


def documents() -> list[Path]:
    top = sorted(ROOT.glob("*.md"))
    return [*top, *sorted((ROOT / "docs").rglob("*.md")), ROOT / "tests" / "README.md"]


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_documents_lead_somewhere(path: Path) -> None:
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert (path.parent / target).exists(), target


def test_what_has_to_pass_before_a_change_lands_is_lint_and_the_readmes_tests() -> None:
    text = (ROOT / ".ci" / "run").read_text()
    assert text.index("make lint") < text.index("make test")
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


def test_warnings_are_errors_in_tests() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    assert settings["pytest"]["ini_options"]["filterwarnings"][0] == "error"
    assert settings["ruff"]["line-length"] == 120
    assert settings["mypy"]["strict"] is True
    assert set(LAYERS) <= set(settings["mypy"]["packages"])


def test_the_modules_that_the_architecture_names_are_there() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    for name in re.findall(r"`((?:server|handlers|config)/[\w/]+\.py)`", text):
        assert (ROOT / name).is_file(), name
