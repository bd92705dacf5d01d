"""`ringcast monitor-worker`: the process that checks monitors.

Owns its options, signals and exit code. Settings are the nodes' own, from the same file and variables.
"""

from __future__ import annotations

import asyncio
import os
import signal

import click
import uvloop

from apps.monitors.worker import Worker
from apps.workers import settings_of
from config.settings import Settings

# A look-up can't be broken off. Of a name whose servers do not answer the resolver is to be done soon.
RESOLVER_OPTIONS = "timeout:2 attempts:2"


@click.command("monitor-worker")
@click.option("--config", "config_file", metavar="FILE", help="YAML file with settings.")
@click.option("--database", metavar="URL", help="The nodes' database: sqlite:PATH or postgresql://…")
@click.option("--log-format", help="json, console or auto.")
def monitor_worker(config_file: str | None, database: str | None, log_format: str | None) -> None:
    """Check all monitors until a signal. It reads the nodes' settings and database, and tells a node what it finds."""
    settings = settings_of(config_file, {"database": database, "log_format": log_format})
    os.environ.setdefault("RES_OPTIONS", RESOLVER_OPTIONS)
    uvloop.run(_work(settings))


async def _work(settings: Settings) -> None:
    worker = Worker(settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, worker.stopping.set)
    await worker.run()
