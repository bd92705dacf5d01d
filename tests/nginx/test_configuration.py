"""The files themselves: nginx accepts them, with all that they offer, and they agree with the node's settings."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from bridges.pubsub import MAX_ENVELOPE_BYTES
from config.settings import Settings
from tests.nginx.certificate import make_certificate
from tests.nginx.proxy import SHIPPED, Nginx

FILES = sorted(SHIPPED.rglob("*.conf"))
NODE = "127.0.0.1:8001"
OFFERS = {
    "by topic": {"    least_conn;": "", "#hash $uri$arg_topic consistent;": "hash $uri$arg_topic consistent;"},
    "other machines": {
        "#server 10.0.0.12:8001 ": "server 10.0.0.12:8001 ",
        "#server 10.0.0.12:8002 ": "server 10.0.0.12:8002 ",
    },
    "other origins": {'#"https://app.example" "https://app.example";': '"https://app.example" "https://app.example";'},
    "inside": {"#127.0.0.1 1;": "127.0.0.1 1;", "#::1 1;": "::1 1;", "#10.0.0.0/8 1;": "10.0.0.0/8 1;"},
    "behind another": {
        "#set_real_ip_from  192.0.2.0/24;": "set_real_ip_from  192.0.2.0/24;",
        "#real_ip_header    X-Forwarded-For;": "real_ip_header    X-Forwarded-For;",
        "#real_ip_recursive on;": "real_ip_recursive on;",
    },
}


def directives(path: Path) -> str:
    """A file without its comments."""
    return re.sub(r"(^|\s)#.*", "", path.read_text())


EVERYTHING = "\n".join(directives(path) for path in FILES)


def value_of(name: str) -> list[str]:
    """The arguments of a directive that is there once, or everywhere the same."""
    found = set(re.findall(rf"^\s*{name}\s+([^;]+);", EVERYTHING, re.MULTILINE))
    assert len(found) == 1, (name, found)
    return str(found.pop()).split()


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


@pytest.mark.parametrize("name", [None, *OFFERS])
def test_nginx_accepts_the_files_as_they_are_and_with_what_they_offer(tmp_path: Path, name: str | None) -> None:
    checked = Nginx(tmp_path, [NODE], OFFERS[name] if name else {}).check()
    assert checked.returncode == 0, checked.stderr
    assert "warn" not in checked.stderr


def test_the_files_work_in_the_folders_they_are_meant_for(tmp_path: Path) -> None:
    """ringcast.conf under conf.d of somebody else's nginx.conf, as Debian's includes it, with ringcast/ beside that."""
    shutil.copytree(SHIPPED / "ringcast", tmp_path / "ringcast")
    (tmp_path / "conf.d").mkdir()
    made = make_certificate(tmp_path)
    text = (SHIPPED / "ringcast.conf").read_text().replace("/var/log/nginx", str(tmp_path))
    (tmp_path / "conf.d" / "ringcast.conf").write_text(text)
    silence = tmp_path / "ringcast" / "silence.conf"
    silence.write_text(silence.read_text().replace("/var/log/nginx", str(tmp_path)))
    listen = tmp_path / "ringcast" / "listen.conf"
    text = re.sub(r"listen \[::\].*", "", listen.read_text()).replace("listen 443 ", "listen 127.0.0.1:0 ")
    for name, path in (("fullchain", made.chain), ("privkey", made.key)):
        text = text.replace(f"/etc/nginx/ringcast/{name}.pem", str(path))
    listen.write_text(text.replace("127.0.0.1:0", "127.0.0.1:1"))
    (tmp_path / "nginx.conf").write_text(
        f"pid {tmp_path}/pid; events {{}} http {{ include {tmp_path}/conf.d/*.conf; }}"
    )
    command = ["nginx", "-t", "-p", str(tmp_path), "-e", "stderr", "-c", str(tmp_path / "nginx.conf")]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    # Binding is not tried by `-t` as root only; what is refused otherwise is the port, not the files.
    assert "syntax is ok" in checked.stderr, checked.stderr


def test_times_and_sizes_agree_with_the_node_s_settings() -> None:
    """Where one side's bound must lie within the other's; the comments give the reasons."""
    settings = Settings()
    assert seconds(value_of("proxy_read_timeout")[0]) > 2 * settings.heartbeat_seconds
    assert value_of("send_timeout") == [f"{settings.write_stall_seconds:.0f}s"]
    server, pushes = re.findall(r"client_max_body_size +(\d+)m;", EVERYTHING)
    assert (int(server) << 20, int(pushes) << 20) == (settings.max_body_bytes, MAX_ENVELOPE_BYTES)
    assert seconds(value_of("client_body_timeout")[0]) <= settings.body_seconds
    assert seconds(value_of("client_header_timeout")[0]) <= settings.header_seconds
    kept = re.findall(r"keepalive_timeout (\d+)s;", directives(SHIPPED / "ringcast" / "nodes.conf"))
    assert [float(kept[0])] < [settings.header_seconds]


def test_descriptors_suffice_for_the_connections() -> None:
    """Both ends of each stream, and what is beside them."""
    [descriptors], [connections] = value_of("worker_rlimit_nofile"), value_of("worker_connections")
    assert int(connections) + 200 < int(descriptors)


def test_the_log_format_has_nothing_that_a_client_wrote() -> None:
    """S28: no variable of the request line's target, of a header or of the query."""
    [form] = re.findall(r"log_format ringcast escape=json(.*?);\n", (SHIPPED / "ringcast.conf").read_text(), re.DOTALL)
    assert set(re.findall(r"\$(\w+)", form)) == {
        "time_iso8601", "remote_addr", "ringcast_method", "ringcast_path", "server_protocol", "status",
        "ringcast_refused", "bytes_sent", "request_time", "upstream_addr", "upstream_status", "upstream_header_time",
    }  # fmt: skip


def test_every_location_keeps_its_errors_to_itself() -> None:
    """S28: nginx's messages about a request hold its query."""
    text = directives(SHIPPED / "ringcast.conf")
    locations = re.findall(r"\n    location [^{]+\{(.*?)\n    \}", text, re.DOTALL)
    assert len(locations) == text.count("location ") == 18
    for body in locations:
        assert re.search(r"include\s+ringcast/(silence|proxy|answer)\.conf;", body), body
    for name in ("proxy", "answer"):
        assert "include ringcast/silence.conf;" in directives(SHIPPED / "ringcast" / f"{name}.conf")


def test_nothing_is_used_that_has_had_holes() -> None:
    """S43: no `rewrite`, no pattern in a map, no captured group."""
    assert "rewrite" not in EVERYTHING
    for body in re.findall(r"\b(?:map|geo) [^{]+\{(.*?)\}", EVERYTHING, re.DOTALL):
        assert "~" not in body
    patterns = re.findall(r"location ~\*? (.+) \{", EVERYTHING)
    assert patterns and not [pattern for pattern in patterns if "(" in pattern]
    assert not re.search(r"\$\d", EVERYTHING)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_paragraph_says_why(path: Path) -> None:
    """A line without a reason is copied without a thought."""
    for paragraph in path.read_text().split("\n\n"):
        assert "#" in paragraph or set(paragraph.split()) == {"}"}, paragraph


def test_every_file_is_named_in_the_main_one_and_every_named_one_is_there() -> None:
    named = set(re.findall(r"include\s+ringcast/(\S+);", EVERYTHING))
    assert named == {path.name for path in (SHIPPED / "ringcast").iterdir()}
    said = set(re.findall(r"^#   (\w+\.conf) ", (SHIPPED / "ringcast.conf").read_text(), re.MULTILINE))
    assert said == named
