"""What systemd itself says of the units, and that they agree with the node's settings and with each other."""

from __future__ import annotations

import re
import subprocess

import pytest

from apps.monitors.worker import FINISH_SECONDS as FOUND_SECONDS
from apps.workers import EXIT_INVALID
from config.settings import Settings
from config.sources import load
from server.notify import Notifier
from server.serving import FINISH_SECONDS, STOP_SECONDS
from tests.nginx.proxy import SHIPPED
from tests.systemd.staging import UNITS, Stage

# 0 is "locked in a box without a network"; a server can't get there. Above this something was loosened.
MOST_EXPOSURE = 1.2


def systemd_analyze(stage: Stage, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["systemd-analyze", "--no-pager", f"--root={stage.folder}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def installed(stage: Stage) -> Stage:
    """With everything but the packages, which the units only name."""
    stage.installed("--without-venv")
    program = stage.path("opt/ringcast/venv/bin/ringcast")
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    # Where a unit of the system itself is named it has to be there to be found.
    for name in ("sysinit", "shutdown", "basic", "network-online", "multi-user"):
        unit = stage.path(f"usr/lib/systemd/system/{name}.target")
        unit.parent.mkdir(parents=True, exist_ok=True)
        unit.write_text("[Unit]\nDescription=of the system\n")
    return stage


def settings_of(name: str) -> dict[str, list[str]]:
    """A unit's settings, by name."""
    found: dict[str, list[str]] = {}
    for key, value in re.findall(r"^(\w+)=(.*)$", (UNITS / name).read_text(), re.MULTILINE):
        found.setdefault(key, []).append(value)
    return found


SERVICE = settings_of("ringcast@.service")
WORKER = settings_of("ringcast-monitor-worker.service")
JOB_WORKER = settings_of("ringcast-job-worker.service")
WORKERS = ("ringcast-monitor-worker.service", "ringcast-job-worker.service")


def test_systemd_finds_nothing_wrong_with_the_units(installed: Stage) -> None:
    units = ("ringcast@8001.service", "ringcast.target", *WORKERS)
    verified = systemd_analyze(installed, "verify", *units)
    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")


def test_systemd_would_find_something_wrong(installed: Stage) -> None:
    """The check above is worth something: a misspelt setting and a missing program are noticed."""
    path = installed.path("etc/systemd/system/ringcast@.service")
    path.write_text(path.read_text().replace("WatchdogSec=", "WatchDogSec="))
    assert "WatchDogSec" in systemd_analyze(installed, "verify", "ringcast@8001.service").stderr
    installed.path("opt/ringcast/venv/bin/ringcast").unlink()
    assert "is not executable" in systemd_analyze(installed, "verify", "ringcast@8001.service").stderr


def test_a_node_is_as_locked_up_as_a_server_can_be(installed: Stage) -> None:
    """`systemd-analyze security` counts what a process may still do that was taken over."""
    threshold = str(round(MOST_EXPOSURE * 10))
    judged = systemd_analyze(
        installed, "security", "--offline=yes", f"--threshold={threshold}", "ringcast@8001.service"
    )
    assert judged.returncode == 0, judged.stdout
    assert "Overall exposure level for ringcast@8001.service: " in judged.stdout
    # What is left: a network, Unix sockets, /proc for the machine's figures, the clock's device, the group's socket,
    # the root directory, and no list of addresses.
    left = set(re.findall(r"^✗ (\S+?)=", judged.stdout, re.MULTILINE))
    assert left == {
        "PrivateNetwork", "RestrictAddressFamilies", "ProcSubset", "DeviceAllow", "UMask", "RootDirectory",
        "IPAddressDeny",
    }  # fmt: skip


@pytest.mark.parametrize("unit", WORKERS)
def test_a_worker_is_locked_up_further_still(installed: Stage, unit: str) -> None:
    """S48: it goes where strangers send it. It has no figures of the machine to read, and a list of addresses."""
    threshold = str(round(MOST_EXPOSURE * 10))
    judged = systemd_analyze(installed, "security", "--offline=yes", f"--threshold={threshold}", unit)
    assert judged.returncode == 0, judged.stdout
    left = set(re.findall(r"^✗ (\S+?)=", judged.stdout, re.MULTILINE))
    assert left == {"PrivateNetwork", "RestrictAddressFamilies", "DeviceAllow", "RootDirectory", "IPAddressDeny"}
    assert settings_of(unit)["IPAddressDeny"] == ["link-local multicast"]


def test_the_worker_of_jobs_gets_no_secret_of_the_nodes() -> None:
    assert JOB_WORKER["EnvironmentFile"] == ["/etc/ringcast/job-worker.env"]
    assert JOB_WORKER["ExecStart"] == ["/opt/ringcast/venv/bin/ringcast job-worker"]
    assert JOB_WORKER["Type"] == ["notify"] and JOB_WORKER["RestartPreventExitStatus"] == [str(EXIT_INVALID)]
    assert float(JOB_WORKER["TimeoutStopSec"][0]) >= 20


def test_the_worker_waits_for_its_database_and_is_given_time_to_store_what_it_found() -> None:
    assert WORKER["Type"] == ["notify"] and WORKER["TimeoutStartSec"] == ["infinity"]
    assert float(WORKER["TimeoutStopSec"][0]) > 3 * FOUND_SECONDS
    assert WORKER["ExecStart"] == ["/opt/ringcast/venv/bin/ringcast monitor-worker"]
    assert WORKER["RestartPreventExitStatus"] == [str(EXIT_INVALID)]
    assert WORKER["PartOf"] == ["ringcast.target"]


def test_the_time_to_stop_covers_the_drain() -> None:
    """And the node asks for more if its drain is set longer, of which the service manager is told the same sum."""
    stop = float(SERVICE["TimeoutStopSec"][0])
    assert stop >= Settings().drain_seconds + STOP_SECONDS
    assert STOP_SECONDS > 3 * FINISH_SECONDS
    assert SERVICE["KillSignal"] == ["SIGTERM"]
    assert SERVICE["Type"] == ["notify"] and SERVICE["NotifyAccess"] == ["main"]


def test_the_unit_says_how_often_the_watchdog_is_fed() -> None:
    [watchdog_seconds] = settings_of("ringcast@.service")["WatchdogSec"]
    [said] = re.findall(r"It speaks up [^.]* every (\d+) s", (UNITS / "ringcast@.service").read_text())
    notifier = Notifier(str, {"WATCHDOG_USEC": f"{int(watchdog_seconds) * 1_000_000}"})
    assert int(said) == notifier._interval_seconds


def test_descriptors_are_within_what_the_kernel_settings_allow() -> None:
    [allowed] = re.findall(r"^fs\.nr_open = (\d+)$", (UNITS / "sysctl-ringcast.conf").read_text(), re.MULTILINE)
    assert int(SERVICE["LimitNOFILE"][0]) <= int(allowed)
    [workers] = re.findall(r"^worker_rlimit_nofile (\d+);$", (SHIPPED / "nginx.conf").read_text(), re.MULTILINE)
    assert int(workers) <= int(allowed)


def test_the_socket_is_where_nginx_looks_for_it() -> None:
    [path] = [value for value in SERVICE["Environment"] if value.startswith("RINGCAST_SOCKET=")]
    expected = path.partition("=")[2].replace("%t", "/run").replace("%i", "8001")
    assert f"server unix:{expected} " in (SHIPPED / "ringcast" / "nodes.conf").read_text()
    assert SERVICE["RuntimeDirectory"] == ["ringcast/%i"]
    assert SERVICE["UMask"] == ["0007"]


def test_an_invalid_setting_is_not_tried_again() -> None:
    """`ringcast serve` exits with 2 for those, with 1 for what may be better in a while."""
    assert SERVICE["RestartPreventExitStatus"] == ["2"]
    assert SERVICE["Restart"] == ["on-failure"]
    assert SERVICE["StartLimitIntervalSec"] == ["0"]


def test_the_growing_wait_begins_where_the_constant_one_is() -> None:
    drop_in = settings_of("ringcast@.service.d/backoff.conf")
    assert drop_in.keys() == {"RestartSteps", "RestartMaxDelaySec"}
    assert float(drop_in["RestartMaxDelaySec"][0]) > float(SERVICE["RestartSec"][0])


@pytest.mark.parametrize("name", sorted(path.name for path in UNITS.glob("*.env.example")))
def test_every_line_of_the_example_settings_is_a_setting(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = re.findall(r"^#(RINGCAST_\w+)=(.*)$", (UNITS / name).read_text(), re.MULTILINE)
    assert lines
    for variable, value in lines:
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("RINGCAST_JWT_SECRET", "a secret of at least thirty-two bytes")
    loaded = load(None, {})
    assert sum(origin != "default" for origin in loaded.origins.values()) >= len(lines)


@pytest.mark.parametrize(
    "name",
    [
        "ringcast@.service", "ringcast.target", "ringcast@.service.d/backoff.conf", "sysusers-ringcast.conf",
        *WORKERS,
    ],
)  # fmt: skip
def test_every_paragraph_of_a_unit_says_why(name: str) -> None:
    for paragraph in (UNITS / name).read_text().split("\n\n"):
        plain = ("Description=", "Documentation=", "WantedBy=", "User=", "Group=", "[")
        lines = [line for line in paragraph.strip().split("\n") if not line.startswith(plain)]
        assert not lines or "#" in paragraph, paragraph
