"""The install script: it can be run again, keeps what is the operator's, and starts nothing."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.nginx.proxy import SHIPPED
from tests.systemd.staging import UNITS, Stage

PARTS = ("--without-venv", "--nginx")
MINE = {
    "etc/ringcast/ringcast.env": "RINGCAST_JWT_SECRET=mine\n",
    "etc/nginx/ringcast/nodes.conf": "# mine\n",
    "etc/nginx/ringcast/listen.conf": "# mine\n",
    "etc/nginx/ringcast/origins.conf": "# mine\n",
    "etc/nginx/ringcast/limits.conf": "# mine\n",
    "etc/nginx/ringcast/inside.conf": "# mine\n",
}


def test_it_installs_everything_once_and_a_second_run_changes_nothing(stage: Stage) -> None:
    said = stage.installed(*PARTS)
    assert "systemctl enable --now ringcast.target ringcast@8001" in said
    first = stage.files()
    assert set(first) >= {
        "etc/ringcast/ringcast.env",
        "etc/ringcast/8001.env.example",
        "etc/ringcast/job-worker.env.example",
        "etc/ringcast/monitor-worker.env.example",
        "etc/sysctl.d/60-ringcast.conf",
        "etc/systemd/system/ringcast@.service",
        "etc/systemd/system/ringcast.target",
        "etc/systemd/system/ringcast-monitor-worker.service",
        "etc/systemd/system/ringcast-job-worker.service",
        "etc/nginx/conf.d/ringcast.conf",
        "opt/ringcast/docs/operations.md",
        "usr/lib/sysusers.d/ringcast.conf",
    }
    assert {Path(name).name for name in first if name.startswith("etc/nginx/ringcast/")} == {
        *(path.name for path in (SHIPPED / "ringcast").iterdir()),
        "nginx.conf.example",
    }
    stage.installed(*PARTS)
    assert stage.files() == first


def test_an_upgrade_replaces_what_is_ours_and_keeps_what_is_not(stage: Stage) -> None:
    stage.installed(*PARTS)
    fresh = stage.files()
    for name in fresh.keys() - {"etc/passwd", "etc/group"}:
        stage.write(name, MINE.get(name, "outdated\n"))
    stage.installed(*PARTS)
    for name, (mode, text) in stage.files().items():
        assert text == MINE.get(name, fresh[name][1]), name
        assert mode == fresh[name][0], name


def test_the_settings_hold_a_key_of_their_own_that_only_root_can_read(stage: Stage, tmp_path: Path) -> None:
    """Behind nginx a node without a key would let everybody publish."""
    stage.installed("--without-venv")
    path = stage.path("etc/ringcast/ringcast.env")
    assert path.stat().st_mode & 0o777 == 0o600
    [key] = re.findall(r"^RINGCAST_JWT_SECRET=([0-9a-f]{64})$", path.read_text(), re.MULTILINE)
    (tmp_path / "other").mkdir()
    other = Stage(tmp_path / "other")
    other.installed("--without-venv")
    assert key not in other.read("etc/ringcast/ringcast.env")


def test_the_user_has_no_shell_and_nginx_gets_at_its_sockets(stage: Stage) -> None:
    stage.installed("--without-venv")
    [entry] = re.findall(r"^ringcast:.*$", stage.read("etc/passwd"), re.MULTILINE)
    assert entry.endswith(":/var/lib/ringcast:/usr/sbin/nologin")
    [group] = re.findall(r"^ringcast:.*$", stage.read("etc/group"), re.MULTILINE)
    assert group.endswith(":www-data")


def test_nginx_s_user_is_not_made_up_where_there_is_no_nginx(tmp_path: Path) -> None:
    stage = Stage(tmp_path, "root:x:0:0:root:/root:/bin/sh\n")
    stage.installed("--without-venv")
    assert "www-data" not in stage.read("etc/passwd")


@pytest.mark.parametrize(("version", "there"), [("252 (252.38-1~deb12u1)", False), ("254~rc1", True), ("257.8", True)])
def test_the_growing_wait_is_installed_where_systemd_knows_it(stage: Stage, version: str, there: bool) -> None:
    """An older one would warn of unknown settings at every start."""
    stage.tool("systemctl", f'[ "$*" = --version ] && echo "systemd {version}"')
    stage.installed("--without-venv")
    assert stage.path("etc/systemd/system/ringcast@.service.d/backoff.conf").exists() is there


def test_without_a_place_of_its_own_it_has_to_be_root(stage: Stage) -> None:
    stage.tool("id", "echo 1000")
    done = stage.install("--without-venv", DESTDIR="")
    assert (done.returncode, done.stdout) == (1, "")
    assert "must be run as root" in done.stderr


def test_an_argument_that_it_does_not_know_changes_nothing(stage: Stage) -> None:
    before = stage.files()
    assert stage.install("--with-nginx").returncode == 2
    assert stage.files() == before
    assert "--without-venv" in stage.installed("--help")
    assert stage.files() == before


# --- the program

# Instead of python: makes a venv whose pip writes down what it is asked for, and installs what pip would.
PYTHON = """\
[ "$1 $2" = "-m venv" ] || exit 9
mkdir -p "$3/bin"
cat >"$3/bin/python" <<END
#!/bin/sh
echo "\\$*" >>"{log}"
[ ! -e "{broken}" ] || exit 1
printf '#!%s\\nprint()\\n' "$3/bin/python" >"$3/bin/ringcast"
END
chmod +x "$3/bin/python"
"""


@pytest.fixture
def python(stage: Stage, tmp_path: Path) -> str:
    return str(stage.tool("python", PYTHON.format(log=tmp_path / "pip", broken=tmp_path / "broken")))


def venvs(stage: Stage) -> set[str]:
    return {path.name for path in stage.path("opt/ringcast").glob("venv-*")}


def test_the_locked_packages_and_ringcast_itself_are_installed(stage: Stage, python: str, tmp_path: Path) -> None:
    stage.installed(PYTHON=python)
    locked, own = (tmp_path / "pip").read_text().splitlines()
    assert locked.endswith(f"install --require-hashes -r {UNITS.parent}/requirements/run.txt")
    assert re.search(r"install --no-deps --no-build-isolation /\S+$", own)
    program = stage.path("opt/ringcast/venv/bin/ringcast")
    assert str(stage.path("usr/local/bin/ringcast").readlink()) == "/opt/ringcast/venv/bin/ringcast"
    assert program.read_text().startswith(f"#!/opt/ringcast/{stage.path('opt/ringcast/venv').readlink()}/bin/python\n")


def test_every_package_is_in_what_is_installed() -> None:
    """A copy of the source is what pip builds from: a package that is not in it is not there when it is needed."""
    packages = {path.parent.name for path in UNITS.parent.glob("*/__init__.py")} - {"tests", "benchmarks"}
    [copied] = re.findall(r"cp -R (.+) \"\$copy\"", (UNITS / "install").read_text())
    assert packages <= set(copied.split())


def test_an_upgrade_keeps_the_one_before_and_no_more(stage: Stage, python: str) -> None:
    """Running nodes, and an operator who wants to go back, need it."""
    link = stage.path("opt/ringcast/venv")
    seen = []
    for _ in range(4):
        stage.installed(PYTHON=python)
        seen.append(str(link.readlink()))
        assert venvs(stage) == set(seen[-2:])
    assert len(set(seen)) == 4


def test_an_upgrade_that_fails_changes_nothing_that_runs(stage: Stage, python: str, tmp_path: Path) -> None:
    stage.installed(PYTHON=python)
    before, units = stage.path("opt/ringcast/venv").readlink(), stage.files()["etc/systemd/system/ringcast@.service"]
    stage.write("etc/systemd/system/ringcast@.service", "as it was\n")
    (tmp_path / "broken").touch()
    assert stage.install(PYTHON=python).returncode != 0
    assert stage.path("opt/ringcast/venv").readlink() == before
    assert stage.read("etc/systemd/system/ringcast@.service") == "as it was\n"
    (tmp_path / "broken").unlink()
    stage.installed(PYTHON=python)
    assert len(venvs(stage)) == 2
    assert stage.files()["etc/systemd/system/ringcast@.service"] == units


def test_the_script_is_plain_sh() -> None:
    done = subprocess.run(["sh", "-n", str(UNITS / "install")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
