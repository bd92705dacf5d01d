"""Redis behind TLS and at a Unix socket: each form of the relay's address, and certificates that are no longer good."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.witnesses import Attempt, Scene
from tests.harness.process import Node, free_port, wait_until
from tests.harness.redis import RedisServer
from tests.nginx.certificate import Certificate, make_certificate
from tests.threats.conftest import finish_all

EVENTS = "/channels/main/events"
RECOVERED_SECONDS = 30
HEARTBEAT_SECONDS = 0.5


class TlsRedis(RedisServer):
    """One that also listens with TLS at `tls_port`, and at a Unix socket. `asks`: it wants a certificate of clients."""

    def __init__(self, folder: Path, certificate: Certificate, *, asks: bool = False) -> None:
        self.tls_port = free_port()
        self.socket = folder / "redis.sock"
        super().__init__(
            folder,
            appendonly="yes",
            appendfsync="always",
            unixsocket=str(self.socket),
            tls_port=str(self.tls_port),
            tls_cert_file=str(certificate.chain),
            tls_key_file=str(certificate.key),
            tls_ca_cert_file=str(certificate.chain),
            tls_auth_clients="yes" if asks else "no",
        )

    def address(self, **options: object) -> str:
        """The relay's, with TLS."""
        query = "&".join(f"{name}={value}" for name, value in options.items())
        return f"rediss://127.0.0.1:{self.tls_port}/0" + (f"?{query}" if query else "")

    def show(self, certificate: Certificate) -> None:
        """From now on to whoever connects; those who are there have to."""
        answer = self.command(
            "CONFIG", "SET", "tls-cert-file", str(certificate.chain), "tls-key-file", str(certificate.key)
        )
        assert answer == b"+OK"
        self.command("CLIENT", "KILL", "TYPE", "normal")


def folder_in(parent: Path, name: str) -> Path:
    folder = parent / name
    folder.mkdir()
    return folder


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return make_certificate(folder_in(tmp_path, "good"))


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Callable[..., list[Node]]]:
    """A factory of two nodes."""
    made: list[Node] = []

    def start(relay: str, **settings: object) -> list[Node]:
        common: dict[str, object] = {"relay": relay, "drain_seconds": 0, "heartbeat_seconds": HEARTBEAT_SECONDS}
        made.extend(Node(tmp_path, **(common | settings)).start() for _ in range(2))
        return made

    yield start
    finish_all(made)


def reason(node: Node) -> str:
    """What `/ready` says of the relay."""
    return str(json.loads(node.get("/ready")[2])["checks"]["relay"])


@pytest.mark.parametrize("form", ["authority in the address", "authority of the system", "client's own", "unix socket"])
def test_nodes_share_a_log_over_each_form_of_the_address_and_outlive_a_kill(
    tmp_path: Path, certificate: Certificate, nodes: Callable[..., list[Node]], form: str, seed: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """FLT-02 and FLT-27: nothing acknowledged is lost, and both nodes are back."""
    redis = TlsRedis(tmp_path, certificate, asks=form == "client's own").start()
    own = {"ssl_certfile": certificate.chain, "ssl_keyfile": certificate.key} if form == "client's own" else {}
    address = redis.address(ssl_ca_certs=certificate.chain, **own)
    if form == "unix socket":
        address = f"unix://{redis.socket}?db=0"
    elif form == "authority of the system":
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate.chain))
        address = redis.address()
    rng = random.Random(seed)
    try:
        several = nodes(address)
        with Scene(*[node.port for node in several]) as scene:
            scene.wait_for(rng.randrange(20, 60))
            redis.kill()
            time.sleep(rng.uniform(0, 0.5))  # for so long it is away
            redis.start()
            scene.wait_for(30)
        assert scene.history.problems() == []
    finally:
        redis.stop()


def refusal(folder: Path, address: str) -> str:
    """Why a node does not begin with this relay, by the last line of its log."""
    node = Node(folder, relay=address)
    with pytest.raises(AssertionError):
        node.start()
    said = json.loads(node.log().splitlines()[-1])
    assert said["event"] == "not_started"
    return str(said["reason"]).rpartition(": ")[2]


def test_a_node_does_not_begin_with_a_redis_whose_authority_it_does_not_know(
    tmp_path: Path, certificate: Certificate
) -> None:
    """Nor with one at another address than the certificate names; each time it says what is wrong."""
    other = make_certificate(folder_in(tmp_path, "other"))
    elsewhere = make_certificate(folder_in(tmp_path, "elsewhere"), address="127.0.0.9")
    redis = TlsRedis(tmp_path, certificate).start()
    unknown = "the certificate of redis is of no authority that is trusted here"
    try:
        assert refusal(tmp_path, redis.address()) == unknown
        assert refusal(tmp_path, redis.address(ssl_ca_certs=other.chain)) == unknown
        redis.show(elsewhere)
        trusted = redis.address(ssl_ca_certs=elsewhere.chain)
        assert refusal(tmp_path, trusted) == "the certificate of redis names another address"
    finally:
        redis.stop()


def test_a_certificate_that_has_ended_is_named_and_a_good_one_is_enough(
    tmp_path: Path, certificate: Certificate, nodes: Callable[..., list[Node]], seed: int
) -> None:
    """FLT-27: readers stay with heartbeats, publishes are refused, and all is back without a restart."""
    rng = random.Random(seed)
    ended = make_certificate(folder_in(tmp_path, "ended"), hours=-1)
    authority = tmp_path / "both.pem"
    authority.write_bytes(certificate.chain.read_bytes() + ended.chain.read_bytes())
    redis = TlsRedis(tmp_path, certificate).start()
    try:
        here, there = several = nodes(redis.address(ssl_ca_certs=authority))
        with Scene(*[node.port for node in several]) as scene:
            scene.wait_for(rng.randrange(20, 60))
            redis.show(ended)
            why = "the certificate of redis has expired"
            wait_until(lambda: reason(here) == reason(there) == why, 15, "the reason")
            with Attempt(here.port, f"{EVENTS}?topic=quiet") as quiet:
                assert quiet.next_event(5).type == "hello"
            refused = here.request("POST", EVENTS, '{"topic": "t", "data": "x"}', Content_Type="application/json")
            assert refused[0] == 503
            time.sleep(rng.uniform(0, 1))  # for so long it is not good
            redis.show(certificate)
            wait_until(lambda: reason(here) == reason(there) == "ok", RECOVERED_SECONDS, "both nodes")
            scene.wait_for(30)
        assert scene.history.problems() == []
        assert [one.connections for one in scene.subscribers] == [1] * len(scene.subscribers)
    finally:
        finish_all(several)
        redis.stop()
