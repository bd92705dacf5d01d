"""One check: a monitor's URL is asked for, and what comes back is judged.

Owns the judgement, how often one tenant may have one address asked, under whichever names, and how many checks it may
have at all: who changes its monitors again and again must not have more of them than who leaves them alone. Must never
know of schedules or databases.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from apps.monitors.limits import Buckets
from apps.monitors.model import Outcome
from apps.monitors.schedule import Monitor
from bridges.outbound import Answer, Certificate, Outbound, OutboundFailed, OutboundRefused, PutOff


class Checker:
    """`address_per_minute` checks of one address for one tenant, `per_minute` of one tenant."""

    def __init__(self, outbound: Outbound, *, address_per_minute: float, per_minute: float) -> None:
        self._outbound = outbound
        self._addresses = Buckets(address_per_minute / 60, max(10.0, address_per_minute / 4))
        self._tenants = Buckets(per_minute / 60, max(10.0, per_minute / 4))

    async def check(self, monitor: Monitor) -> Outcome:
        """What there is to be said of the monitor. Raises PutOff."""
        if not self._tenants.take(str(monitor.tenant)):
            raise PutOff("too many checks of this tenant")
        checked = time.time()
        try:
            answer = await self._outbound.get(
                monitor.url,
                seconds=monitor.timeout_seconds,
                verify=monitor.check_ssl,
                permit=self._permit(monitor.tenant),
            )
        except PutOff:
            raise
        except OutboundRefused as error:
            return Outcome(checked, False, error_message=error.reason)
        except OutboundFailed as error:
            return _judged(checked, False, None, error.reason, error.certificate)
        problem = _problem(monitor, answer)
        return _judged(checked, problem is None, answer, problem, answer.certificate)

    def _permit(self, tenant: int) -> Callable[[str], None]:
        def permit(address: str) -> None:
            if not self._addresses.take(f"{tenant} {address}"):
                raise PutOff("too many checks of this address")

        return permit


def _problem(monitor: Monitor, answer: Answer) -> str | None:
    """What is wrong with an answer."""
    if monitor.expected_status is None:
        return None if 200 <= answer.status < 400 else f"HTTP status {answer.status}"
    if answer.status != monitor.expected_status:
        return f"HTTP status {answer.status}, expected {monitor.expected_status}"
    return None


def _judged(
    checked: float, success: bool, answer: Answer | None, problem: str | None, certificate: Certificate | None
) -> Outcome:
    return Outcome(
        checked,
        success,
        None if answer is None else answer.status,
        None if answer is None else round(answer.seconds * 1000),
        problem,
        None if certificate is None else certificate.valid,
        None if certificate is None else certificate.expires,
    )
