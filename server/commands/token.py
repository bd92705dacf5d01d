"""`ringcast token`: a signed token for the rights that are asked for.

Owns the claims that the server understands (docs/protocol.md, Rights). Only a shared secret can sign here: with a
public key the tokens are the issuer's. Must never print the secret.
"""

from __future__ import annotations

import sys
import time

import click
import jwt
from pydantic import SecretStr

from config.problems import ConfigError
from config.settings import Settings
from config.sources import load
from server.commands.options import channel_option

MAIN = "main"
EXIT_INVALID = 2


@click.command()
@click.option("--publish", "publish", multiple=True, metavar="SELECTOR", help="Topics it may publish to; repeatable.")
@click.option(
    "--subscribe", multiple=True, metavar="SELECTOR", help="Topics it may read private events of; repeatable."
)
@channel_option
@click.option("--operate", is_flag=True, help="May read /stats and /metrics.")
@click.option("--subject", metavar="NAME", help="Whom it is for (`sub`).")
@click.option("--tenant", metavar="NAME", help="Whose it is (`tenant`): limits and revocations go by that.")
@click.option("--company", metavar="NAME", help="For which company it is (`company`), in the application `companies`.")
@click.option("--expires-seconds", type=click.IntRange(min=0), default=3600, show_default=True, help="0: never.")
@click.option("--secret", metavar="SECRET", help="Instead of jwt_secret; others on this machine can see it.")
@click.option("--config", "config_file", metavar="FILE", help="YAML file with settings.")
def token(
    publish: tuple[str, ...],
    subscribe: tuple[str, ...],
    channel: str,
    operate: bool,
    subject: str | None,
    tenant: str | None,
    company: str | None,
    expires_seconds: int,
    secret: str | None,
    config_file: str | None,
) -> None:
    """Print a token signed with the configured secret. A SELECTOR is *, a topic, or a URI template."""
    if not (publish or subscribe or operate or subject or company):
        raise click.UsageError(
            "a token without rights is of no use: give --publish, --subscribe, --operate, --subject or --company"
        )
    try:
        settings = load(config_file, {"jwt_secret": secret}).settings
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(EXIT_INVALID)
    whose = {"sub": subject, "tenant": tenant, "company": company}
    claims = grants(channel, publish, subscribe, operate=operate) | _envelope(settings, whose, expires_seconds)
    click.echo(jwt.encode(claims, _key(settings).get_secret_value(), settings.jwt_algorithm))


def grants(
    channel: str, publish: tuple[str, ...], subscribe: tuple[str, ...], *, operate: bool = False
) -> dict[str, object]:
    """The claims `mercure` (rights on channel main) and `ringcast` (on others, and operating)."""
    rights = {name: list(given) for name, given in (("publish", publish), ("subscribe", subscribe)) if given}
    claims: dict[str, object] = {}
    ringcast: dict[str, object] = {"operate": True} if operate else {}
    if rights and channel == MAIN:
        claims["mercure"] = rights
    elif rights:
        ringcast[channel] = rights
    if ringcast:
        claims["ringcast"] = ringcast
    return claims


def _envelope(settings: Settings, whose: dict[str, str | None], expires_seconds: int) -> dict[str, object]:
    expires = int(time.time()) + expires_seconds if expires_seconds else None
    claims = whose | {"exp": expires, "iss": settings.jwt_issuer, "aud": settings.jwt_audience}
    return {name: value for name, value in claims.items() if value is not None}


def _key(settings: Settings) -> SecretStr:
    if settings.jwt_secret is None:
        reason = "tokens are signed by their issuer" if not settings.development else "development mode needs no token"
        raise click.ClickException(f"no jwt_secret is configured: {reason}")
    return settings.jwt_secret
