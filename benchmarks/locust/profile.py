"""The headless profile: `python -m benchmarks.locust.profile` holds 500 users against a server for half a minute and
fails if a limit is broken.

Starts a server of its own on a free port unless `--host` names one. Its own server ends every stream after some seconds
(maximum age), so that each reader reconnects and resumes in the course of the run. Any option that is not its own goes
to Locust as it is.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = Path(__file__).parent
# What the crowd is of, and where its users are.
APPLICATIONS = ("facilities", "prices", "monitors", "jobs", "companies")
CROWDS = {"channel": "locustfile.py"} | {name: f"{name}.py" for name in APPLICATIONS}
SHAPE = "shape.py"


def arguments() -> tuple[argparse.Namespace, list[str]]:
    """The profile's own options, and those for Locust."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", help="test this server, as http://host:port (default: start one)")
    parser.add_argument(
        "--of", choices=CROWDS, default="channel", help="readers of a channel, or of an application (channel)"
    )
    parser.add_argument("--users", type=int, default=500, help="readers and publishers together (500)")
    parser.add_argument("--spawn-rate", type=int, default=100, help="users started a second (100)")
    parser.add_argument(
        "--seconds", type=int, default=25, help="length of the run, the start of the users included (25)"
    )
    parser.add_argument(
        "--stages",
        action="store_true",
        help="readers come and go in stages: 30 s up to 100, a minute of that, 30 s down to none; "
        "no --users, --spawn-rate and --seconds then",
    )
    parser.add_argument(
        "--max-age-seconds", type=float, default=10, help="the age at which the own server ends a stream (10; 0: never)"
    )
    return parser.parse_known_args()


@contextlib.contextmanager
def server(of: str, max_age_seconds: float) -> Iterator[str]:
    """A server on a free port, and its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {
        "PORT": port,
        "HOST_SOURCE": "false",
        "APPS": "none" if of == "channel" else of,
        "SIMULATE": "false",
        "MAX_AGE_SECONDS": max_age_seconds,
        "MAX_AGE_JITTER": 0.5,
        "DRAIN_SECONDS": 0,
    }
    env = {key: value for key, value in os.environ.items() if not key.startswith("RINGCAST_")}
    env |= {f"RINGCAST_{key}": str(value) for key, value in settings.items()} | {"PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryDirectory() as folder:
        log_path = Path(folder) / "server.log"
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "server", "serve"], cwd=folder, env=env, stdout=log, stderr=log
            )
        try:
            wait_for(f"http://127.0.0.1:{port}", process, log_path)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(20)


def wait_for(host: str, process: subprocess.Popen[bytes], log_path: Path) -> None:
    """Until the server answers; SystemExit if it ends instead or takes 20 s."""
    end = time.monotonic() + 20
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            urllib.request.urlopen(f"{host}/health", timeout=2).close()
            return
        time.sleep(0.05)
    raise SystemExit(f"the server did not start:\n{log_path.read_text(errors='replace')}")


def load(host: str, options: argparse.Namespace, further: list[str]) -> int:
    """Run Locust without its page; its exit code."""
    files = [CROWDS[options.of], *([SHAPE] if options.stages else [])]
    command = [
        sys.executable,
        "-m",
        "locust",
        "-f",
        ",".join(str(FOLDER / file) for file in files),
        "--headless",
        "--host",
        host,
        "--only-summary",
        "--loglevel",
        "WARNING",
        "--stop-timeout",
        "15",
    ]
    if not options.stages:
        command += ["--users", str(options.users), "--spawn-rate", str(options.spawn_rate)]
        command += ["--run-time", f"{options.seconds}s"]
    return subprocess.run([*command, *further], cwd=ROOT, check=False).returncode


def main() -> int:
    """The profile; 0 if all limits were kept."""
    options, further = arguments()
    if options.host:
        return load(options.host.rstrip("/"), options, further)
    with server(options.of, options.max_age_seconds) as host:
        return load(host, options, further)


if __name__ == "__main__":
    sys.exit(main())
