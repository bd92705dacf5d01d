"""S48: TLS to addresses that strangers name: the certificate has to hold for the name, and is told of if not."""

from __future__ import annotations

import asyncio
import datetime
import os
import ssl
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from bridges.outbound import Answer, OutboundFailed
from tests.bridges.canary import canary, guard, reason_of, run


def make_pair(folder: Path, name: str, days: float) -> Path:
    """A certificate of its own authority, with its key, that holds for so many days from a month ago on."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=30))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{name}.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + private)
    return path


async def ask_securely(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str = "shop.example", days: float = 20, **options: Any
) -> tuple[Answer, list[str]]:
    """Ask a server that has a certificate for shop.example, under another name perhaps; and which names it heard."""
    path = make_pair(folder, "shop.example", days)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(path)
    names: list[str] = []
    context.sni_callback = lambda _socket, name, _context: names.append(name)

    async def resolve(_host: str, _port: int) -> Sequence[str]:
        return ["127.0.0.1"]

    async with canary(ssl=context) as listening:
        async with guard(ports=[listening.port], allow_private=True, resolve=resolve) as outbound:
            return await outbound.get(f"https://{name}:{listening.port}/", **options), names


def test_a_certificate_that_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        answer, names = await ask_securely(tmp_path, monkeypatch)
        assert (answer.status, answer.body) == (200, b"hi")
        assert answer.certificate is not None and answer.certificate.valid
        assert answer.certificate.expires == pytest.approx(time.time() + 20 * 86_400, abs=60)
        assert names == ["shop.example"]

    run(work)


@pytest.mark.parametrize(
    ("name", "days", "problem"), [("shop.example", -1, "expired"), ("other.example", 20, "other.example")]
)
def test_a_certificate_that_does_not_hold_is_an_error_with_what_was_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, days: float, problem: str
) -> None:
    """S48: TLS to the wrong name."""

    async def work() -> None:
        with pytest.raises(OutboundFailed, match=problem) as caught:
            await ask_securely(tmp_path, monkeypatch, name, days)
        certificate = caught.value.certificate
        assert certificate is not None and not certificate.valid
        assert certificate.expires == pytest.approx(time.time() + days * 86_400, abs=60)

    run(work)


def test_who_does_not_mind_gets_the_answer_and_the_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        answer, _ = await ask_securely(tmp_path, monkeypatch, days=-1, verify=False)
        assert answer.status == 200
        assert answer.certificate is not None and not answer.certificate.valid
        assert "expired" in answer.certificate.problem

    run(work)


def test_what_is_not_tls_is_said_to_be_no_tls() -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async def work() -> None:
        server = await asyncio.start_server(plain, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with guard(ports=[port], allow_private=True) as outbound:
            assert await reason_of(outbound.get(f"https://127.0.0.1:{port}/")) == "TLS failed"
        server.close()

    run(work)


def test_a_handshake_that_does_not_go_on_has_an_end() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def work() -> None:
        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        before = len(os.listdir("/proc/self/fd"))
        async with guard(ports=[port], allow_private=True, total_seconds=0.1) as outbound:
            for _ in range(5):
                assert "no whole answer" in await reason_of(outbound.get(f"https://127.0.0.1:{port}/"))
        async with asyncio.timeout(10):
            while len(os.listdir("/proc/self/fd")) > before:  # noqa: ASYNC110 - the other side ends when it does
                await asyncio.sleep(0.01)
        server.close()

    run(work)
