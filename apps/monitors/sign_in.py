"""Signing in: accounts over HTTP.

Owns the endpoints under `/api/v1/auth`: register, log in, a fresh token, log out, and the other users of the tenant.
Must never know of monitors.

Invariants: a login with a wrong password and one of nobody give the same answer after the same work; guesses are
counted by address (of IPv6 by network, for whoever has one address has them all) and by e-mail address, and who guesses
from one address locks nobody out. A user who is removed, and a token that is logged out, lose their streams on all
nodes at once.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, StringConstraints

from apps.moments import written
from apps.monitors import replies
from apps.monitors.accounts import Accounts, Taken, User
from apps.monitors.limits import Buckets
from apps.monitors.model import Name
from apps.monitors.passwords import Passwords
from apps.monitors.tenancy import NoTenant, TooMany
from apps.monitors.tokens import Tokens, subject_of, tenant_of, token_id_of, user_of
from config.settings import Settings
from handlers.answers import Refused, missing_grant
from handlers.endpoints import Body, Call, Endpoint, Page, Reply, Safe, conflict, not_found
from server.cluster import Cluster
from server.endings import FORBIDDEN, RATE_LIMITED, UNAUTHORIZED
from server.exchange import Request
from server.peers import Peers

ROOT = "/api/v1/auth"
LONGEST_REVOCATION_SECONDS = 30 * 86_400.0
MAX_EMAIL_CHARACTERS = 254
EMAIL_SHARE = 3  # so many times what one address may guess, for one e-mail address


def _check_text(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("must be text") from None
    return value


def _check_length(value: str) -> str:
    """Small letters may be more than the capitals were."""
    if len(value) > MAX_EMAIL_CHARACTERS:
        raise ValueError(f"must be at most {MAX_EMAIL_CHARACTERS} characters")
    return value


def crowd_of(address: str) -> str:
    """Whom an address stands for, when its requests are counted."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.version == 4:
        return address
    return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed, 64), strict=False))


_Lower = StringConstraints(to_lower=True, max_length=MAX_EMAIL_CHARACTERS, pattern=r"^[^@\s]{1,64}@[^@\s]{1,189}$")
Email = Annotated[str, _Lower, AfterValidator(_check_length), Safe]
Secret = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_check_text)]
NewSecret = Annotated[str, StringConstraints(min_length=8, max_length=200), AfterValidator(_check_text)]


class Login(Body):
    """Who one is."""

    email: Email
    password: Secret


class Registration(Body):
    """A new tenant and its first user."""

    email: Email
    password: NewSecret
    tenant_name: Name | None = None


class NewUser(Body):
    """One more user of the tenant."""

    email: Email
    password: NewSecret


class SignIn:
    """`options` says what the page has to know before anybody has signed in."""

    def __init__(
        self,
        settings: Settings,
        accounts: Accounts,
        passwords: Passwords,
        tokens: Tokens,
        cluster: Cluster,
        options: Callable[[], dict[str, Any]],
    ) -> None:
        self._settings = settings
        self._accounts = accounts
        self._passwords = passwords
        self._tokens = tokens
        self._cluster = cluster
        self._options = options
        self._peers = Peers(settings.trusted_proxies)
        per_minute = settings.monitors_logins_per_minute
        self._by_address = Buckets(per_minute / 60, per_minute)
        self._by_email = Buckets(EMAIL_SHARE * per_minute / 60, EMAIL_SHARE * per_minute)

    def endpoints(self) -> Sequence[Endpoint]:
        """See the module's head."""
        tag, mine = "monitors accounts", self._tokens.signed_in
        return [
            Endpoint(
                "GET", f"{ROOT}/options", self._show, "How one may sign in.", reply=replies.SignInOptions, tag=tag
            ),
            Endpoint(
                "POST", f"{ROOT}/register", self._register, "Register a tenant with its first user.",
                body=Registration, reply=replies.SignedIn, status=201, errors=(404, 409, 429), tag=tag,
            ),
            Endpoint(
                "POST", f"{ROOT}/login", self._login, "Log in; the answer holds a token.", body=Login,
                reply=replies.SignedIn, errors=(404, 429), tag=tag,
            ),
            Endpoint(
                "POST", f"{ROOT}/refresh", self._refresh, "A fresh token.", reply=replies.SignedIn, access=mine,
                errors=(404,), tag=tag,
            ),
            Endpoint("POST", f"{ROOT}/logout", self._logout, "End the token.", access=mine, status=204, tag=tag),
            Endpoint(
                "GET", f"{ROOT}/users", self._list, "The tenant's users.", Page, reply=replies.Users, access=mine,
                tag=tag,
            ),
            Endpoint(
                "POST", f"{ROOT}/users", self._add, "Add a user to the tenant.", body=NewUser,
                reply=replies.AddedUser, access=mine, status=201, errors=(409,), tag=tag,
            ),
            Endpoint(
                "DELETE", f"{ROOT}/users/{{user_id}}", self._remove, "Remove a user.", access=mine, status=204,
                errors=(409,), tag=tag,
            ),
        ]  # fmt: skip

    async def _show(self, _: Call) -> Reply:
        return Reply(self._options())

    def _check_accounts(self) -> None:
        if not self._tokens.makes:
            raise not_found("", "accounts are kept by the issuer of the tokens")

    def _count(self, request: Request, email: str | None = None) -> None:
        """One more guess. Raises Refused if it is one too many."""
        address = self._peers.address(request.remote, request.headers.get(b"x-forwarded-for"))
        if not self._by_address.take(crowd_of(address)) or (email is not None and not self._by_email.take(email)):
            raise Refused(RATE_LIMITED, reason="too many attempts: try again in a minute")

    async def _register(self, call: Call) -> Reply:
        self._check_accounts()
        if not self._settings.monitors_registration:
            raise Refused(FORBIDDEN, reason="nobody can register here")
        self._count(call.request)
        wanted: Registration = call.body
        kept = await self._passwords.hashed(wanted.password)
        name = wanted.tenant_name or wanted.email.partition("@")[0]
        try:
            user = await self._accounts.register(wanted.email, kept, name)
        except Taken:
            raise _taken() from None
        return Reply(self._signed_in(user), 201)

    async def _login(self, call: Call) -> Reply:
        self._check_accounts()
        wanted: Login = call.body
        self._count(call.request, wanted.email)
        user = await self._accounts.by_email(wanted.email)
        if not await self._passwords.holds(wanted.password, user.password if user else None) or user is None:
            raise Refused(UNAUTHORIZED, reason="the e-mail address or the password is wrong")
        return Reply(self._signed_in(user))

    async def _refresh(self, call: Call) -> Reply:
        self._check_accounts()
        user = await self._accounts.by_id(user_of(call.principal))
        if user is None or user.tenant != tenant_of(call.principal):
            raise missing_grant("there is no such user any more")
        return Reply(self._signed_in(user))

    def _signed_in(self, user: User) -> dict[str, Any]:
        token = self._tokens.make(user.id, user.tenant)
        return {
            "token": token.text,
            "expires_at": written(token.expires),
            "user": user.facts(),
            "tenant": {"id": user.tenant, "name": user.tenant_name},
        }

    async def _logout(self, call: Call) -> Reply:
        left = LONGEST_REVOCATION_SECONDS
        if call.principal.expires is not None:
            left = min(left, max(1.0, call.principal.expires - time.time()))
        await self._cluster.revoke("token", token_id_of(call.principal), left)
        return Reply()

    # --- the tenant's users

    async def _list(self, call: Call) -> Reply:
        query: Page = call.query
        found = await self._accounts.list(tenant_of(call.principal), query.limit, query.offset)
        return Reply({"users": [user.facts() for user in found], "limit": query.limit, "offset": query.offset})

    async def _add(self, call: Call) -> Reply:
        self._count(call.request)
        kept = await self._passwords.hashed(call.body.password)
        try:
            number = await self._accounts.add(tenant_of(call.principal), call.body.email, kept)
        except Taken:
            raise _taken() from None
        except TooMany as error:
            raise conflict(error.field, error.reason) from None
        except NoTenant:
            raise no_tenant() from None
        return Reply({"id": number, "email": call.body.email}, 201)

    async def _remove(self, call: Call) -> Reply:
        text = call.arguments["user_id"]
        number = int(text) if text.isascii() and text.isdigit() and len(text) <= 16 else 0
        if call.principal.subject == subject_of(number):
            raise conflict("user_id", "one can't remove oneself")
        tenant, user = tenant_of(call.principal), await self._accounts.by_id(number)
        if user is None or user.tenant != tenant:
            raise not_found("user_id", "there is no such user")
        # First: who is not there any more could not be removed once again, if the other nodes can't be told now.
        await self._cluster.revoke("subject", subject_of(number), self._settings.monitors_token_seconds)
        await self._accounts.remove(tenant, number)
        return Reply()


def _taken() -> Refused:
    return conflict("email", "there is an account with this e-mail address")


def no_tenant() -> Refused:
    """The token's tenant is not one of ours."""
    return missing_grant("there is no tenant of the token's number here")
