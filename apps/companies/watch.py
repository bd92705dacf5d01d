"""The stream of a company's events (C1), and who is admitted to it (C4).

Owns the check of the token's company, and that a stream selects this company's topic and is granted no other: live,
replayed, and whatever its cursor says. A stream lives by the token's rights. Must never know what the events mean.

Invariant: a stranger learns nothing of a company, not even whether its events are streamed: whose token does not name
it is refused before the flag is looked at.
Cost: an admission does not wait; a set look-up and a selection.
"""

from __future__ import annotations

from collections.abc import Mapping

from apps.companies.flags import Flags
from apps.companies.model import MAX_ID_CHARACTERS, is_company, topic_of
from apps.companies.refusals import in_both_forms
from handlers.answers import Refused, bad, missing_token
from handlers.fields import parse_last
from handlers.streams import Admitted, StreamCall
from server.endings import FORBIDDEN, UNAVAILABLE
from server.rights import ANONYMOUS, Principal
from server.selection import Selection
from server.selectors import exact_selector


class Watch:
    """`refused` counts by what was wrong."""

    def __init__(self, flags: Flags) -> None:
        self._flags = flags
        self.refused = {"company": 0, "flag": 0}

    def admit(self, call: StreamCall) -> Admitted:
        """The stream of one company. Raises Refused."""
        company = _company(call.parameters)
        self._check_company(company, call.principal)
        self._check_flag(company)
        topic = exact_selector(topic_of(company))
        last = parse_last(call.parameters.get("last"))
        return Admitted(Selection(frozenset([topic]), None, (topic,)), call.principal, last)

    def _check_company(self, company: str, principal: Principal) -> None:
        if principal is ANONYMOUS:
            raise missing_token()
        if not principal.operate and principal.company != company:
            self.refused["company"] += 1
            raise _forbidden("You can only stream events for your own company")

    def _check_flag(self, company: str) -> None:
        if not self._flags.allow(company):
            self.refused["flag"] += 1
            raise _forbidden("Streaming is switched off for this company")
        if not self._flags.settled(company):
            raise Refused(UNAVAILABLE, "companyId", "streaming was switched on a moment ago")


def _forbidden(reason: str) -> Refused:
    return in_both_forms(Refused(FORBIDDEN, "companyId", reason))


def _company(parameters: Mapping[str, str]) -> str:
    company = parameters.get("companyId", "")
    if not company:
        raise bad("companyId", "is required")
    if not is_company(company):
        raise bad("companyId", f"must be 1 to {MAX_ID_CHARACTERS} of A-Z a-z 0-9 . _ : @ -")
    return company
