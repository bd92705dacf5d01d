"""Companies over HTTP: statistics, health, and the flags.

Owns the endpoints and who may use them: a company's token sees its own numbers and no others, not even in a sum; flags
are for operators. Must never know how anything is counted or stored.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from apps.companies.flags import Flags
from apps.companies.model import (
    CompanyFlag,
    CompanyFlags,
    Flag,
    Stats,
    StreamingHealth,
    health_of,
    is_company,
    scoped,
    stats_of,
)
from apps.companies.presence import Presence
from apps.companies.refusals import in_both_forms
from apps.companies.store import CompanyStore
from apps.companies.tally import Tally
from bridges.database import DatabaseUnavailable
from handlers.answers import missing_grant
from handlers.endpoints import Call, Endpoint, Page, Reply, everybody, not_found, operators, signed_in
from server.rights import ANONYMOUS, Principal

COMPANIES = "/stream/companies"


class CompanyHandlers:
    """The endpoints. `source_state` is "ok" or what is wrong with where messages come from."""

    def __init__(
        self, store: CompanyStore, flags: Flags, presence: Presence, tally: Tally, source_state: Callable[[], str]
    ) -> None:
        self._store = store
        self._flags = flags
        self._presence = presence
        self._tally = tally
        self._source_state = source_state

    def endpoints(self) -> Sequence[Endpoint]:
        """See the module's head."""
        tag, one = "companies", f"{COMPANIES}/{{companyId}}"
        return [
            Endpoint("GET", "/stream/stats", self._stats, "Streams and retained events, by company.", reply=Stats,
                     access=_named, tag=tag),
            Endpoint("GET", "/stream/health", self._health, "Whether there is streaming, and how much.",
                     reply=StreamingHealth, access=everybody, tag=tag),
            Endpoint("GET", COMPANIES, self._list, "Companies with a flag of their own.", Page, reply=CompanyFlags,
                     access=operators, tag=tag),
            Endpoint("GET", one, self._get, "A company's flag.", reply=CompanyFlag, access=operators, tag=tag),
            Endpoint("PUT", one, self._put, "Switch a company's streaming on or off.", body=Flag, reply=CompanyFlag,
                     access=operators, tag=tag),
        ]  # fmt: skip

    async def _stats(self, call: Call) -> Reply:
        company = _scope(call.principal)
        streams = scoped(await self._presence.everywhere(), company)
        return Reply(stats_of(streams, scoped(self._tally.by_company(), company), time.time()))

    async def _health(self, call: Call) -> Reply:
        status = "ok" if self._source_state() == "ok" else "degraded"
        found: Mapping[str, int]
        try:
            found = await self._presence.everywhere()
        except DatabaseUnavailable:
            status, found = "degraded", self._presence.here()
        principal = call.principal
        if principal is ANONYMOUS or not (principal.operate or principal.company):
            return Reply(health_of(status, self._flags.default, None, time.time()))
        company = _scope(principal)
        enabled = self._flags.default if company is None else self._flags.allow(company)
        return Reply(health_of(status, enabled, scoped(found, company), time.time()))

    async def _list(self, call: Call) -> Reply:
        page: Page = call.query
        found = await self._store.list(page.limit, page.offset)
        return Reply({"companies": found, "limit": page.limit, "offset": page.offset})

    async def _get(self, call: Call) -> Reply:
        company = _argument(call)
        found = await self._store.get(company)
        if found is None:
            raise not_found("companyId", f"company {company} has no flag of its own")
        return Reply(found)

    async def _put(self, call: Call) -> Reply:
        switched = await self._store.switch(_argument(call), call.body.streaming)
        await self._flags.look()
        return Reply(switched)


def _named(call: Call) -> None:
    """An operator's token, or one that names a company."""
    signed_in(call)
    _scope(call.principal)


def _scope(principal: Principal) -> str | None:
    """The company whose numbers may be seen, None for all. Raises Refused."""
    if principal.operate:
        return None
    if not principal.company:
        raise in_both_forms(missing_grant("the token names no company"))
    return principal.company


def _argument(call: Call) -> str:
    company = call.arguments["companyId"]
    if not is_company(company):
        raise not_found("companyId", "there is no company of such a name")
    return company
