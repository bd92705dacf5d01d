"""`POST /internal/broadcast` (M2): what the worker has found out enters the log here.

Owns who may do that: requests from inside (this machine, or the networks that the operator names), that no proxy has
passed on, with the secret. From outside it is not there. Must never know how a check is made.

Invariants: what is acknowledged is in the log; the same idempotency key is the same event; an event goes to the tenant
that it names and to nobody else. In development mode the secret may be missing, as the seed's own example has it.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from apps.monitors.accounts import Accounts
from apps.monitors.model import CHECK, FACTS, Broadcast, Said
from apps.monitors.replies import Broadcasted
from apps.monitors.watch import Watch
from config.loopback import is_loopback
from config.settings import Settings
from handlers.answers import Refused, bad
from handlers.endpoints import Call, Endpoint, Reply, conflict, invalid
from server.endings import NOT_FOUND, UNAUTHORIZED
from server.event import InvalidEvent
from server.exchange import Request
from server.hub import Hub
from server.peers import Network
from server.relay.protocol import Appended, Key, KeyConflict
from server.rights import DEVELOPMENT

PATH = "/internal/broadcast"
MAX_KNOWN_TENANTS = 100_000
# Any of these tells of a proxy, which may pass on for anybody; and so does every other `X-Forwarded-…`.
FORWARDED = (b"forwarded", b"via", b"x-real-ip", b"x-client-ip", b"true-client-ip", b"cf-connecting-ip")
FORWARDED_PREFIX = b"x-forwarded"
_KEY = re.compile(r"[\x21-\x7e]{1,255}")


class Broadcasts:
    """See the module's head."""

    def __init__(self, settings: Settings, accounts: Accounts, watch: Watch, hub: Hub, channel: str) -> None:
        secret = settings.monitors_secret
        self._secret = secret.get_secret_value().encode() if secret else None
        self._inside: list[Network] = [ipaddress.ip_network(text) for text in settings.monitors_inside]
        self._accounts = accounts
        self._watch = watch
        self._hub = hub
        self._channel = channel
        self._known: set[int] = set()
        self.taken: dict[str, int] = dict.fromkeys(FACTS, 0)
        self.outcomes = {"success": 0, "failure": 0}
        self.replayed = 0
        self.refused = {"outside": 0, "secret": 0}

    def endpoint(self) -> Endpoint:
        """See the module's head."""
        return Endpoint(
            "POST", PATH, self._run, "Tell a tenant of a check or an incident; for the worker.", body=Broadcast,
            reply=Broadcasted, access=self._check, errors=(404, 409), tag="monitors internal",
        )  # fmt: skip

    def _check(self, call: Call) -> None:
        if not self._is_inside(call.request):
            self.refused["outside"] += 1
            raise Refused(NOT_FOUND)
        if not self._is_trusted(call):
            self.refused["secret"] += 1
            raise Refused(UNAUTHORIZED, reason="the secret is needed", challenge="Bearer")

    def _is_inside(self, request: Request) -> bool:
        if any(name in FORWARDED or name.startswith(FORWARDED_PREFIX) for name in request.headers):
            return False
        if not request.remote or is_loopback(request.remote):
            return True
        address = ipaddress.ip_address(request.remote.partition("%")[0])
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address.version == network.version and address in network for network in self._inside)

    def _is_trusted(self, call: Call) -> bool:
        """By the secret; or else by an operator's token; or, where nobody needs any and none is set, as it is."""
        if call.principal.operate and (call.principal is not DEVELOPMENT or self._secret is None):
            return True
        shown = call.request.headers.get(b"x-internal-secret")
        if shown is None:
            shown = call.request.headers.get(b"authorization", b"").removeprefix(b"Bearer ")
        return self._secret is not None and hmac.compare_digest(shown, self._secret)

    async def _run(self, call: Call) -> Reply:
        body: Broadcast = call.body
        data = _checked(body)
        if body.tenant_id not in self._known:
            await self._learn(body.tenant_id)
        try:
            event = Said(body.tenant_id, body.type, data).event()
            answer = self._hub.publish(self._hub.channels[self._channel], [event], _key(call.request))
            appended = answer if isinstance(answer, Appended) else await answer
        except InvalidEvent as error:
            raise invalid(error.field, error.reason) from None
        except KeyConflict:
            raise conflict("Idempotency-Key", "was used with another request") from None
        self._count(body.type, data, replayed=appended.replayed)
        streams = self._watch.streams_of(body.tenant_id)
        return Reply({"message": "Event broadcasted", "clients": streams, "id": appended.ids[0]})

    async def _learn(self, tenant: int) -> None:
        if not await self._accounts.has_tenant(tenant):
            raise invalid("tenant_id", f"there is no tenant {tenant}")
        if len(self._known) < MAX_KNOWN_TENANTS:
            self._known.add(tenant)

    def _count(self, kind: str, data: Mapping[str, Any], *, replayed: bool) -> None:
        if replayed:
            self.replayed += 1
            return
        self.taken[kind] += 1
        if kind == CHECK and "success" in data:
            self.outcomes["success" if data["success"] else "failure"] += 1


def _checked(body: Broadcast) -> dict[str, Any]:
    """The data, valid for its type. Raises Refused."""
    try:
        facts = FACTS[body.type].model_validate(body.data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = ".".join(map(str, ("data", *first["loc"])))
        raise invalid(field, first["msg"].removeprefix("Value error, ")) from None
    return facts.model_dump(exclude_none=True)


def _key(request: Request) -> Key | None:
    text = request.header(b"idempotency-key")
    if text is None:
        return None
    if _KEY.fullmatch(text) is None:
        raise bad("Idempotency-Key", "must be 1 to 255 visible ASCII characters")
    return key_of(text, request.body)


def key_of(text: str, body: bytes) -> Key:
    """The idempotency key of what the worker sends, also for who tells it in the worker's place."""
    return Key("monitors", text, hashlib.blake2b(body, digest_size=16).digest())
