"""The command line: `ringcast`, and `python -m server`.

Owns the commands' names. Each is imported when it is asked for, and the server's parts when it serves
(server/serving.py): a script that publishes event by event must not load an HTTP server each time.
Cost: 0.1 s until `--version`, `publish` or `tail` has begun; 0.4 s with everything.
"""

from __future__ import annotations

import sys
from importlib import import_module

import click


def _check_config() -> click.Command:
    from server.commands.check_config import check_config

    return check_config


def _job_worker() -> click.Command:
    # By name: the server's modules know no application, and which there are is not theirs to say.
    command: click.Command = import_module("apps.jobs.command").job_worker
    return command


def _monitor_worker() -> click.Command:
    command: click.Command = import_module("apps.monitors.command").monitor_worker
    return command


def _publish() -> click.Command:
    from server.commands.publish import publish

    return publish


def _rolling_restart() -> click.Command:
    from server.commands.rolling_restart import rolling_restart

    return rolling_restart


def _tail() -> click.Command:
    from server.commands.tail import tail

    return tail


def _token() -> click.Command:
    from server.commands.token import token

    return token


LOADERS = {
    "check-config": _check_config,
    "job-worker": _job_worker,
    "monitor-worker": _monitor_worker,
    "publish": _publish,
    "rolling-restart": _rolling_restart,
    "tail": _tail,
    "token": _token,
}


class Commands(click.Group):
    """Loads a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *LOADERS])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        load = LOADERS.get(cmd_name)
        return load() if load is not None else super().get_command(ctx, cmd_name)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ringcast")
def cli() -> None:
    """Ringcast: a server for many Server-Sent Events streams."""


@cli.command()
@click.option("--config", metavar="FILE", help="YAML file with settings.")
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=int, help="TCP port to listen on.")
@click.option("--socket", metavar="PATH", help="Unix socket to listen on as well.")
@click.option("--relay", help="Where the log lives: memory: or sqlite:PATH.")
@click.option("--max-connections", type=int, help="Most streaming connections; 0: as many as the file limit allows.")
@click.option("--log-format", help="json, console or auto.")
def serve(config: str | None, **command_line: object) -> None:
    """Serve until a signal. Settings are also environment variables, RINGCAST_NAME; see `ringcast check-config`."""
    from server.serving import run_server

    sys.exit(run_server(config, command_line))


def main() -> None:
    """Console script."""
    cli(prog_name="ringcast")


if __name__ == "__main__":
    main()
