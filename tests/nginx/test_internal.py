"""What is between the parts of an application stays inside (S47): nginx passes none of it on."""

from __future__ import annotations

import json

import pytest

from tests.apps.monitoring import SECRET, SETTINGS, broadcast, register
from tests.nginx.conftest import StartNginx, StartSocketNode

PATHS = (
    "/internal/broadcast",
    "//internal/broadcast",
    "/%69nternal/broadcast",
    "/internal%2fbroadcast",
    "/x/../internal/broadcast",
    "/internal/./broadcast",
    "/internal//broadcast",
    "/internal/broadcast?a=b",
    "/internal/broadcast/",
    "/internal/broadcast;x",
    "/INTERNAL/broadcast",
    "/internal",
    "/internal/",
)


@pytest.mark.parametrize("method", ["POST", "GET", "PUT"])
def test_nobody_broadcasts_through_nginx(nginx: StartNginx, socket_node: StartSocketNode, method: str) -> None:
    """M2: with the right secret, however the path is spelled, and whatever the client says of where it comes from."""
    node = socket_node(**SETTINGS | {"jwt_secret": "a secret of at least thirty-two bytes", "monitors_secret": SECRET})
    proxy = nginx(node)
    tenant = register(node)
    body = json.dumps({"type": "monitor_check", "data": {"monitor_id": "m"}, "tenant_id": tenant.number})
    shown = {"X_Internal_Secret": SECRET, "Content_Type": "application/json", "X_Forwarded_For": "127.0.0.1"}
    for path in PATHS:
        status, _, answer = proxy.request(method, path, body, **shown)
        assert status in (404, 405), (path, answer)
        assert b"broadcasted" not in answer
    assert broadcast(node, tenant.number, {"monitor_id": "m"}, X_Internal_Secret=SECRET).status == 200
    assert SECRET not in proxy.errors() + proxy.access_log.read_text()
