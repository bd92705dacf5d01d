"""`ringcast job-worker`: the process that works on jobs.

Owns its options, signals and exit code. Settings are the nodes' own, from the same file and variables.
"""

from __future__ import annotations

import asyncio
import signal
import sys

import click
import uvloop

from apps.jobs.worker import Worker
from apps.workers import EXIT_INVALID, settings_of
from config.settings import Settings


@click.command("job-worker")
@click.option("--config", "config_file", metavar="FILE", help="YAML file with settings.")
@click.option("--folder", "jobs_folder", metavar="PATH", help="Folder whose files jobs may name as sources.")
@click.option("--report-by", "jobs_report_by", help="http, redis or pubsub.")
@click.option("--log-format", help="json, console or auto.")
def job_worker(config_file: str | None, **command_line: str | None) -> None:
    """Take jobs from the nodes and do them until a signal. It reads the nodes' settings, and asks them over HTTP."""
    settings = settings_of(config_file, command_line)
    sys.exit(uvloop.run(_work(settings)))


async def _work(settings: Settings) -> int:
    """The exit code."""
    try:
        worker = Worker(settings)
    except ValueError as error:
        click.echo(str(error), err=True)
        return EXIT_INVALID
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, worker.stop)
    await worker.run()
    return 0
