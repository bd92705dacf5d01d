"""A node with all applications and something of each kind in it, and requests that it must grant. Knows no test."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from apps.monitors.model import Outcome
from config.applications import APPLICATIONS
from tests.apps import monitoring
from tests.apps.jobbing import WANTED, WORKING
from tests.apps.monitoring import PASSWORD
from tests.apps.pricing import NAMES, Api
from tests.apps.pricing import ask as ask_prices
from tests.apps.recorded import recorded
from tests.harness.process import TOKEN_SECRET, Node, wait_until
from tests.threats.tokens import bearer, signed

JOBS, MONITORS, RULES, AUTH = "/api/v1/jobs", "/api/v1/monitors", "/api/v1/alert-rules", "/api/v1/auth"
WORKER = "one"
SHOP = {"name": "Shop", "url": "https://shop.example/", "interval_seconds": 60}
RULE = {"name": "Down", "trigger_type": "down", "breaches": 1}
LAGOS = {"lat": 6.5244, "lon": 3.3792, "radius": 10}


class Request(NamedTuple):
    """What goes into a request beside the path's arguments."""

    query: Mapping[str, Any] = {}
    body: object = None


class Furnished:
    """`node` runs. There is a key, so that the description's `security` is meant; the token may do everything."""

    def __init__(self, folder: Path, database: str) -> None:
        self._prices = Api()
        for item_id in NAMES:
            self._prices.trade(item_id, high=1_000, low=900)
        self.node = Node(
            folder,
            apps=",".join(APPLICATIONS),
            database=database,
            simulate=False,
            jwt_secret=TOKEN_SECRET,
            jobs_per_minute=100_000,
            monitors_logins_per_minute=100_000,
            monitors_password_rounds=1,
            monitors_host_per_minute=100_000,
            prices_upstream=self._prices.url,
            prices_contact="prices@ringcast.example",
        )
        self._numbers = itertools.count(1)
        self._claims: dict[str, Any] = {}
        self._known: dict[str, str] = {}
        self.email = self._new_email()

    def start(self) -> Furnished:
        """Start the node and put something of each kind into it."""
        self.node.start()
        account = {"email": self.email, "password": PASSWORD}
        mine = monitoring.ask(self.node, "POST", f"{AUTH}/register", account).json
        self._claims = {
            "sub": f"monitors-{mine['user']['id']}",
            "tenant": mine["tenant"]["id"],
            "exp": int(time.time()) + 3_600,
            "ringcast": {"operate": True},
        }
        monitor, rule = self._made(MONITORS, SHOP)["id"], self._made(RULES, RULE)["id"]
        self._made(MONITORS, SHOP | {"enabled": False})
        said = recorded(str(self.node.settings["database"]), monitor, *_outcomes())
        assert [one.type for one in said].count("incident_created") == 2
        incident = self._asked("GET", "/api/v1/incidents")["incidents"][0]["id"]
        job = self._job(taken=True)
        self._asked("POST", f"{JOBS}/{job}/updates", WORKING | {"worker": WORKER, "data": {"words": 812}})
        self._asked("PUT", "/stream/companies/acme", {"streaming": True})
        wait_until(lambda: ask_prices(self.node, "/current")[1]["total"] == len(NAMES), 20)
        self._known = {"monitor_id": monitor, "rule_id": rule, "incident_id": str(incident), "jobId": job}
        return self

    def stop(self) -> None:
        """Stop the node. It must not have stumbled."""
        self.node.stop()
        self._prices.close()
        assert "Traceback" not in self.node.log(), self.node.log()[-4000:]

    def headers(self) -> dict[str, str]:
        """A token of its own: it may be logged out."""
        return {"Authorization": bearer(signed(self._claims | {"jti": f"token-{next(self._numbers)}"}))}

    def arguments(self, method: str, path: str) -> dict[str, str]:
        """Arguments of a path under which there is something; what the request uses up is made for it alone."""
        names = [part.partition("}")[0] for part in path.split("{")[1:]]
        return {name: self._argument(method, path, name) for name in names}

    def _argument(self, method: str, path: str, name: str) -> str:
        if name == "id":
            return "4151" if "prices" in path else "fac_001"
        if name == "companyId":
            return "acme"
        if name == "jobId" and method == "POST":
            return self._job(taken=path.endswith("/release"))
        if name == "user_id":
            user = self._made(f"{AUTH}/users", {"email": self._new_email(), "password": PASSWORD})
            return str(user["id"])
        if method == "DELETE":
            made = self._made(MONITORS, SHOP) if name == "monitor_id" else self._made(RULES, RULE)
            return str(made["id"])
        return self._known[name]

    def _job(self, *, taken: bool) -> str:
        job_id = str(self._made(JOBS, WANTED)["jobId"])
        while taken:
            taken = self._asked("POST", f"{JOBS}/claim", {"worker": WORKER})["jobId"] != job_id
        return job_id

    def rightful(self, method: str, path: str) -> Sequence[Request]:
        """Requests, each of which is granted with the arguments above."""
        if path == f"{JOBS}/claim":
            self._job(taken=False)
        account = {"email": self._new_email(), "password": PASSWORD}
        requests: dict[str, Sequence[Request]] = {
            "GET /api/facilities/search": [Request(), Request(LAGOS | {"procedure": "proc_ecg"})],
            "GET /api/facilities/suggest": [Request({"q": "yaba"})],
            "GET /api/geocode": [Request({"q": "lagos"})],
            "PATCH /api/facilities/{id}": [Request(body={"avg_wait_minutes": 7})],
            "DELETE /api/cache/region": [Request(LAGOS)],
            "GET /api/v1/prices/history/{id}": [Request({"period": "all"}), Request({"sample": "true"})],
            f"POST {JOBS}": [Request(body=WANTED), Request(body={"topics": ["numbers"], "texts": ["One. Two."]})],
            f"POST {JOBS}/{{jobId}}/updates": [Request(body=WORKING | {"data": {"words": 812}})],
            f"POST {JOBS}/claim": [Request(body={"worker": WORKER})],
            f"POST {JOBS}/{{jobId}}/release": [Request(body={"worker": WORKER})],
            "PUT /stream/companies/{companyId}": [Request(body={"streaming": True})],
            f"POST {AUTH}/register": [Request(body=account)],
            f"POST {AUTH}/login": [Request(body={"email": self.email, "password": PASSWORD})],
            f"POST {AUTH}/users": [Request(body=account)],
            f"POST {MONITORS}": [Request(body=SHOP)],
            f"PATCH {MONITORS}/{{monitor_id}}": [Request(body={"name": "Store"})],
            f"POST {RULES}": [Request(body=RULE | {"monitor_id": self._known["monitor_id"]})],
            f"PATCH {RULES}/{{rule_id}}": [Request(body={"recoveries": 3})],
            "POST /internal/broadcast": [
                Request(
                    body={
                        "type": "monitor_check",
                        "data": {"monitor_id": self._known["monitor_id"]},
                        "tenant_id": self._claims["tenant"],
                    }
                )
            ],
        }
        return requests.get(f"{method} {path}", [Request()])

    def _new_email(self) -> str:
        return f"user{next(self._numbers)}@example.com"

    def _made(self, path: str, body: object) -> Any:
        return self._asked("POST", path, body)

    def _asked(self, method: str, path: str, body: object = None) -> Any:
        answer = monitoring.ask(self.node, method, path, body, **self.headers())
        assert answer.status in (200, 201), f"{method} {path}: {answer.status} {answer.text}"
        return answer.json


def _outcomes() -> Sequence[Outcome]:
    """An incident that is over, and one that is open."""
    now = time.time()
    return [
        Outcome(now - 4, success=False, status_code=503, response_time_ms=12, error_message="HTTP status 503"),
        Outcome(now - 3, success=True, status_code=200, response_time_ms=7, ssl_valid=True, ssl_expires=now + 86_400),
        Outcome(now - 2, success=True, simulated=True),
        Outcome(now - 1, success=False, error_message="connection refused"),
    ]
