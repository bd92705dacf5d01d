"""The sysctl fragment, as the kernel takes it: in a network namespace of the test's own, which ends with it."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from config.settings import Settings
from server.sockets import BACKLOG
from tests.nginx.proxy import SHIPPED
from tests.systemd.staging import UNITS

TEXT = (UNITS / "sysctl-ringcast.conf").read_text()
LINES = dict(re.findall(r"^(-?[a-z_.0-9]+) = (.+)$", TEXT, re.MULTILINE))


def test_every_line_is_a_setting_and_has_its_reason() -> None:
    paragraphs = TEXT.strip().split("\n\n")[1:]
    for paragraph in paragraphs:
        assert paragraph.startswith("#")
    bare = [line for line in TEXT.splitlines() if line and not line.startswith("#")]
    assert len(bare) == len(LINES) == 10


def test_the_kernel_knows_and_takes_every_setting(tmp_path: Path) -> None:
    """Those of the network are tried; the one of files holds for the machine, and is looked at only."""
    network = {name: value for name, value in LINES.items() if name.startswith("net.")}
    assert LINES.keys() - network.keys() == {"fs.nr_open", "-net.netfilter.nf_conntrack_max"}
    fragment = tmp_path / "sysctl.conf"
    fragment.write_text("".join(f"{name} = {value}\n" for name, value in network.items()))
    script = f"sysctl --quiet --load {fragment} && sysctl {' '.join(network)}"
    alone = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--net", "--map-root-user"]
    done = subprocess.run([*alone, "sh", "-c", script], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr
    said = {name: " ".join(value.split()) for name, value in re.findall(r"^(\S+) = (.+)$", done.stdout, re.MULTILINE)}
    assert said == network
    assert int(LINES["fs.nr_open"]) <= int(Path("/proc/sys/fs/nr_open").read_text())


def test_queues_and_buffers_agree_with_what_asks_for_them() -> None:
    queue = int(LINES["net.core.somaxconn"])
    assert queue >= BACKLOG
    assert set(re.findall(r"backlog=(\d+)", (SHIPPED / "ringcast" / "listen.conf").read_text())) == {str(queue)}
    first_port = int(LINES["net.ipv4.ip_local_port_range"].split()[0])
    assert first_port > 8064  # the nodes' own ports are not given away
    assert Settings().send_buffer_bytes < int(LINES["net.ipv4.tcp_wmem"].split()[2])
