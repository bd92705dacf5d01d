"""Monitors over HTTP: what a tenant has, and how it stands (M5). All of it goes on working beside the stream.

Owns the endpoints of monitors, checks, alert rules and incidents, and how often a tenant may change something: each
change is an event, and the log is all tenants'. What is another tenant's is not there (404). Must never know how
anything is stored or checked.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

from apps.monitors import replies
from apps.monitors.incidents import IncidentStore, NoMonitor, NotTogether
from apps.monitors.limits import Buckets
from apps.monitors.model import IncidentList, MonitorChange, NewMonitor, NewRule, RuleChange, RuleList
from apps.monitors.sign_in import no_tenant
from apps.monitors.store import MonitorStore
from apps.monitors.tenancy import NoTenant, TooMany
from apps.monitors.tokens import Tokens, tenant_of
from apps.monitors.watch import Watch
from bridges.outbound import Outbound, OutboundRefused
from config.settings import Settings
from handlers.answers import Refused
from handlers.endpoints import Answer, Body, Call, Endpoint, Page, Reply, conflict, invalid, not_found
from server.endings import RATE_LIMITED

MONITORS, RULES, INCIDENTS = "/api/v1/monitors", "/api/v1/alert-rules", "/api/v1/incidents"
LATEST = "/api/v1/checks/latest"
CHANGES_PER_SECOND, CHANGES_AT_ONCE = 5.0, 300
_ID = re.compile(r"[0-9a-f]{24}")
_NUMBER = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)


class MonitorHandlers:
    """`outbound` judges the URLs that monitors name."""

    def __init__(
        self,
        settings: Settings,
        monitors: MonitorStore,
        incidents: IncidentStore,
        tokens: Tokens,
        watch: Watch,
        outbound: Outbound,
    ) -> None:
        self._settings = settings
        self._monitors = monitors
        self._incidents = incidents
        self._tokens = tokens
        self._watch = watch
        self._outbound = outbound
        self._changes = Buckets(CHANGES_PER_SECOND, CHANGES_AT_ONCE)

    def endpoints(self) -> Sequence[Endpoint]:
        """See the module's head."""
        return [*self._monitor_endpoints(), *self._alert_endpoints()]

    def _monitor_endpoints(self) -> Iterator[Endpoint]:
        tag, one = "monitors", f"{MONITORS}/{{monitor_id}}"
        own: dict[str, Any] = {"access": self._tokens.signed_in, "tag": tag}
        yield Endpoint("GET", MONITORS, self._list, "The tenant's monitors.", Page, reply=replies.Monitors, **own)
        yield self._change_by("POST", MONITORS, self._create, "A new monitor.", tag, NewMonitor, replies.Monitor)
        yield Endpoint("GET", one, self._get, "A monitor.", reply=replies.Monitor, **own)
        yield self._change_by("PATCH", one, self._change, "Change a monitor.", tag, MonitorChange, replies.Monitor)
        yield self._change_by("DELETE", one, self._delete, "Delete a monitor.", tag)
        yield Endpoint(
            "GET", f"{one}/checks", self._checks, "Its checks, newest first.", Page, reply=replies.PastChecks, **own
        )
        yield Endpoint(
            "GET", LATEST, self._latest, "The last check of each monitor.", Page, reply=replies.LastChecks, **own
        )
        yield Endpoint(
            "GET", f"{MONITORS}/summary", self._summary, "How many stand how.", reply=replies.MonitorSummary, **own
        )

    def _alert_endpoints(self) -> Iterator[Endpoint]:
        tag, one = "alerts", f"{RULES}/{{rule_id}}"
        own: dict[str, Any] = {"access": self._tokens.signed_in, "tag": tag}
        yield Endpoint("GET", RULES, self._list_rules, "The alert rules.", RuleList, reply=replies.AlertRules, **own)
        yield self._change_by("POST", RULES, self._create_rule, "A new alert rule.", tag, NewRule, replies.AlertRule)
        yield Endpoint("GET", one, self._get_rule, "An alert rule.", reply=replies.AlertRule, **own)
        yield self._change_by("PATCH", one, self._change_rule, "Change a rule.", tag, RuleChange, replies.AlertRule)
        yield self._change_by("DELETE", one, self._delete_rule, "Delete an alert rule.", tag)
        yield Endpoint(
            "GET", INCIDENTS, self._list_incidents, "Incidents, newest first.", IncidentList, reply=replies.Incidents,
            **own,
        )  # fmt: skip
        yield Endpoint(
            "GET", f"{INCIDENTS}/{{incident_id}}", self._get_incident, "An incident.", reply=replies.Incident, **own
        )

    def _change_by(
        self,
        method: str,
        path: str,
        run: Callable[[Call], Awaitable[Reply]],
        summary: str,
        tag: str,
        body: type[Body] | None = None,
        reply: type[Answer] | None = None,
    ) -> Endpoint:
        """An endpoint that changes something."""
        status = {"POST": 201, "PATCH": 200, "DELETE": 204}[method]
        errors = (429,) if body is None else (409, 429)
        return Endpoint(
            method, path, run, summary, body=body, reply=reply, access=self._may_change, status=status, errors=errors,
            tag=tag,
        )  # fmt: skip

    def _may_change(self, call: Call) -> None:
        self._tokens.signed_in(call)
        if not self._changes.take(call.principal.tenant):
            raise Refused(RATE_LIMITED, reason="too many changes of this tenant")

    # --- monitors

    async def _list(self, call: Call) -> Reply:
        query: Page = call.query
        found, total = await self._monitors.list(tenant_of(call.principal), query.limit, query.offset)
        return Reply({"monitors": found, "total": total, "limit": query.limit, "offset": query.offset})

    async def _create(self, call: Call) -> Reply:
        new: NewMonitor = call.body
        self._check_interval(new.interval_seconds)
        new.url, host = self._judged(new.url)
        try:
            facts = await self._monitors.create(tenant_of(call.principal), new, host)
        except TooMany as error:
            raise conflict(error.field, error.reason) from None
        except NoTenant:
            raise no_tenant() from None
        return Reply(facts, 201, [("Location", f"{MONITORS}/{facts['id']}")])

    async def _get(self, call: Call) -> Reply:
        monitor_id = _monitor_id(call)
        return Reply(_found(await self._monitors.get(tenant_of(call.principal), monitor_id), "monitor_id", "monitor"))

    async def _change(self, call: Call) -> Reply:
        monitor_id, fields = _monitor_id(call), _given(call.body)
        if "interval_seconds" in fields:
            self._check_interval(fields["interval_seconds"])
        if "url" in fields:
            fields["url"], fields["host"] = self._judged(fields["url"])
        try:
            changed = await self._monitors.change(tenant_of(call.principal), monitor_id, fields)
        except TooMany as error:
            raise conflict(error.field, error.reason) from None
        except NoTenant:
            raise no_tenant() from None
        return Reply(_found(changed, "monitor_id", "monitor"))

    async def _delete(self, call: Call) -> Reply:
        try:
            gone = await self._monitors.delete(tenant_of(call.principal), _monitor_id(call))
        except NoTenant:
            raise no_tenant() from None
        if not gone:
            raise _no("monitor_id", "monitor")
        return Reply()

    async def _checks(self, call: Call) -> Reply:
        tenant, monitor_id, query = tenant_of(call.principal), _monitor_id(call), call.query
        _found(await self._monitors.get(tenant, monitor_id), "monitor_id", "monitor")
        found = await self._monitors.checks(tenant, monitor_id, query.limit, query.offset)
        return Reply({"checks": found, "limit": query.limit, "offset": query.offset})

    async def _latest(self, call: Call) -> Reply:
        query: Page = call.query
        found = await self._monitors.latest(tenant_of(call.principal), query.limit, query.offset)
        return Reply({"checks": found, "limit": query.limit, "offset": query.offset})

    async def _summary(self, call: Call) -> Reply:
        tenant = tenant_of(call.principal)
        return Reply(await self._monitors.summary(tenant) | {"streams": self._watch.streams_of(tenant)})

    def _check_interval(self, seconds: int) -> None:
        least = self._settings.monitors_min_interval_seconds
        if seconds < least:
            raise invalid("interval_seconds", f"must be at least {least}")

    def _judged(self, url: str) -> tuple[str, str]:
        """The URL as it will be used, and its host. Raises Refused."""
        try:
            target = self._outbound.target(url)
        except OutboundRefused as error:
            raise invalid("url", error.reason) from None
        return target.url, target.host

    # --- alert rules and incidents

    async def _list_rules(self, call: Call) -> Reply:
        query: RuleList = call.query
        found = await self._incidents.rules(tenant_of(call.principal), query.monitor_id, query.limit, query.offset)
        return Reply({"alert_rules": found, "limit": query.limit, "offset": query.offset})

    async def _create_rule(self, call: Call) -> Reply:
        most = self._settings.monitors_per_tenant
        try:
            facts = await self._incidents.create_rule(tenant_of(call.principal), call.body, most)
        except NotTogether as error:
            raise invalid(error.field, error.reason) from None
        except NoMonitor:
            raise invalid("monitor_id", "there is no such monitor") from None
        except TooMany as error:
            raise conflict(error.field, error.reason) from None
        except NoTenant:
            raise no_tenant() from None
        return Reply(facts, 201, [("Location", f"{RULES}/{facts['id']}")])

    async def _get_rule(self, call: Call) -> Reply:
        rule_id = _rule_id(call)
        return Reply(_found(await self._incidents.rule(tenant_of(call.principal), rule_id), "rule_id", "alert rule"))

    async def _change_rule(self, call: Call) -> Reply:
        rule_id, fields = _rule_id(call), _given(call.body)
        try:
            changed = await self._incidents.change_rule(tenant_of(call.principal), rule_id, fields)
        except NotTogether as error:
            raise invalid(error.field, error.reason) from None
        except NoTenant:
            raise no_tenant() from None
        return Reply(_found(changed, "rule_id", "alert rule"))

    async def _delete_rule(self, call: Call) -> Reply:
        try:
            gone = await self._incidents.delete_rule(tenant_of(call.principal), _rule_id(call))
        except NoTenant:
            raise no_tenant() from None
        if not gone:
            raise _no("rule_id", "alert rule")
        return Reply()

    async def _list_incidents(self, call: Call) -> Reply:
        query: IncidentList = call.query
        tenant = tenant_of(call.principal)
        found = await self._incidents.list(tenant, query.status, query.monitor_id, query.limit, query.offset)
        return Reply({"incidents": found, "limit": query.limit, "offset": query.offset})

    async def _get_incident(self, call: Call) -> Reply:
        text = call.arguments["incident_id"]
        if _NUMBER.fullmatch(text) is None:
            raise _no("incident_id", "incident")
        incident = await self._incidents.incident(tenant_of(call.principal), int(text))
        return Reply(_found(incident, "incident_id", "incident"))


def _given(body: Body) -> dict[str, Any]:
    """The fields that came. Raises Refused if there are none."""
    fields = body.model_dump(include=body.model_fields_set)
    if not fields:
        raise invalid("", "there is nothing to change")
    return fields


def _monitor_id(call: Call) -> str:
    return _id(call, "monitor_id", "monitor")


def _rule_id(call: Call) -> str:
    return _id(call, "rule_id", "alert rule")


def _id(call: Call, field: str, what: str) -> str:
    """An argument that may be an id: anything else would trouble the database."""
    text = call.arguments[field]
    if _ID.fullmatch(text) is None:
        raise _no(field, what)
    return text


def _found(facts: dict[str, Any] | None, field: str, what: str) -> dict[str, Any]:
    if facts is None:
        raise _no(field, what)
    return facts


def _no(field: str, what: str) -> Refused:
    return not_found(field, f"there is no such {what}")
