"""A company's switch, as whoever has set it finds it."""

from __future__ import annotations

from tests.apps.asking import ask, headers_of
from tests.apps.companies import FLAGS, OPERATOR, of, path_of
from tests.conftest import StartNode
from tests.harness.process import TOKEN_SECRET


def test_the_node_that_switched_a_company_off_refuses_it_from_the_answer_on(node: StartNode) -> None:
    """C4: a script that goes on at once gets the 403, not a stream that ends; of fifty some would."""
    server = node(apps="companies", simulate=False, jwt_secret=TOKEN_SECRET)
    for number in range(50):
        company = f"company-{number}"
        assert ask(server, "PUT", f"{FLAGS}/{company}", {"streaming": False}, OPERATOR)[0] == 200
        status, _, answer = server.get(path_of(company), **headers_of(of(company)))
        assert (status, b"Streaming is switched off" in answer) == (403, True), answer
