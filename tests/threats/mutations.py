"""Seeded mutations of valid requests: bytes flipped, cut, spliced, repeated, swapped, and words that parsers dislike
put in.

Pure: a seed gives the same requests on every machine.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

from tests.threats.wire import request

WORDS: list[bytes] = [
    b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\x00", b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\xef\xbb\xbf",
    b"\xe2\x80\xa8", b" ", b"\t", b":", b";", b",", b"%", b"%00",
    b"%0d%0a", b"%ff", b"%u0041", b"&", b"=", b"+", b"?", b"#", b"/", b"//", b"/../", b"*", b"{", b"}", b"{+a}",
    b"{a", b"\\", b'"', b"\\u0000", b"\\ud800", b"[", b"]",
    b"0", b"-1", b"1e999", b"NaN", b"9" * 40, b"18446744073709551616", b"0x10", b"true", b"null", b"HTTP/1.0",
    b"HTTP/2.0", b"HTTP/0.9", b"http://a/", b"@",
    b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n", b"Content-Length: 99999999\r\n",
    b"Expect: 100-continue\r\n", b"Connection: close\r\n",
    b"Connection: upgrade\r\nUpgrade: websocket\r\n", b"Content-Encoding: gzip\r\n", b"Host: b\r\n",
    b"Last-Event-ID: earliest\r\n", b"Last-Event-ID: \xff\r\n",
    b"Authorization: Bearer\r\n", b"Authorization: Bearer a.b.c\r\n", b"Cookie: mercureAuthorization=\r\n",
    b"Origin: null\r\n", b"Accept: */*\r\n",
    b"X-Forwarded-For: 1.2.3.4\r\n", b"Idempotency-Key: a\r\n", b"Accept-Encoding: gzip\r\n", b"Range: bytes=0-1\r\n",
    b"Content-Type: application/x-ndjson\r\n",
    b"Content-Type: application/x-www-form-urlencoded; charset=utf-7\r\n",
    b"Content-Type: multipart/form-data; boundary=a\r\n", b"last=1000&", b"topic=*&", b"match=",
    b"last_event_id=earliest&", b"type=message&", b"authorization=a&", b"private=&", b"retry=1&", b"id=a&",
]  # fmt: skip
METHODS = [
    b"HEAD",
    b"OPTIONS",
    b"PUT",
    b"DELETE",
    b"PATCH",
    b"TRACE",
    b"CONNECT",
    b"QUERY",
    b"PRI",
    b"get",
    b"G",
    b"G\x00T",
    b"A" * 5000,
    b"",
    b"GET GET",
    b"\x16\x03\x01",
]
Operation = Callable[[random.Random, bytes, Sequence[bytes]], bytes]


def _flip(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    changed = bytearray(data)
    for _number in range(rng.choice((1, 1, 2, 8, 32))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _cut_out(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    begin = rng.randrange(len(data))
    return data[:begin] + data[begin + rng.choice((1, 2, 5, 20, 100)) :]


def _cut_off(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    return data[: rng.randrange(1, len(data) + 1)]


def _repeat(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    begin = rng.randrange(len(data))
    piece = data[begin : begin + rng.choice((1, 1, 4, 16, 64))]
    return data[:begin] + piece * rng.choice((2, 3, 10, 100, 1000)) + data[begin:]


def _put_in(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    begin = rng.randrange(len(data) + 1)
    return data[:begin] + rng.choice(WORDS) + data[begin:]


def _put_header(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    headers = [word for word in WORDS if word.endswith(b"\r\n") and b": " in word]
    return data.replace(b"\r\n", b"\r\n" + rng.choice(headers), 1)


def _splice(rng: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    other = rng.choice(others)
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other)) :]


def _method(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    return rng.choice(METHODS) + b" " + data.partition(b" ")[2]


def _swap_lines(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    lines = data.split(b"\r\n")
    rng.shuffle(lines)
    return b"\r\n".join(lines)


def _encode(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    return data.decode("latin-1").encode(rng.choice(("utf-8", "utf-16", "utf-32", "utf-7")))


def _swell(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    begin = rng.randrange(len(data) + 1)
    return data[:begin] + rng.randbytes(1) * rng.choice((4_000, 9_000, 70_000, 200_000)) + data[begin:]


def _noise(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    return data[: rng.randrange(len(data))] + rng.randbytes(rng.randrange(1, 400))


OPERATIONS: list[Operation] = [
    _flip, _flip, _flip, _cut_out, _cut_out, _cut_off, _repeat, _put_in, _put_in, _put_in, _put_header, _put_header,
    _splice, _splice, _method, _swap_lines, _encode, _noise,
]  # fmt: skip


def seeds(token: str | None) -> list[bytes]:
    """A valid request for each endpoint and each feature of it."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    form, line = ({"Content_Type": f"application/{kind}"} | headers for kind in ("x-www-form-urlencoded", "json"))
    many = {"Content_Type": "application/x-ndjson", "Idempotency_Key": "k-1"} | headers
    data = b'"data": {"n": [1, 2.5, null]}'
    event = b'{"topics": ["fuzz/a", "fuzz/b"], ' + data + b', "type": "t", "id": "i-1", "retry": 500, "private": true}'
    chunked = request("POST", "/channels/main/events", b"", **line).replace(
        b"Content-Length: 0", b"Transfer-Encoding: chunked"
    )
    return [
        request(
            "GET",
            "/.well-known/mercure?topic=fuzz%2Fa&topic=fuzz/{b}&last_event_id=earliest",
            Accept="text/event-stream",
            **headers,
        ),
        request(
            "GET", "/.well-known/mercure?match=fuzz%2Fa&match_exact=b", Last_Event_ID="aaaaaa-0000000000001", **headers
        ),
        request("GET", "/channels/main/events?topic=fuzz/*&type=t&last=10", Accept="text/event-stream", **headers),
        request("GET", "/channels/main/events", Origin="https://app.example", Cookie="mercureAuthorization=a.b.c; x=y"),
        request(
            "POST",
            "/.well-known/mercure",
            b"topic=fuzz%2Fa&topic=fuzz%2Fb&data=caf%C3%A9+x&type=t&id=i&retry=10&private",
            **form,
        ),
        request("POST", "/channels/main/events", event, **line),
        request("POST", "/channels/main/events", b"\n".join([event] * 5), **many),
        chunked + f"{len(event):x}\r\n".encode() + event + b"\r\n0\r\n\r\n",
        request(
            "OPTIONS",
            "/.well-known/mercure",
            Origin="https://app.example",
            Access_Control_Request_Method="GET",
            Access_Control_Request_Headers="last-event-id",
        ),
        *(request("GET", path, **headers) for path in ("/health", "/ready", "/stats", "/metrics", "/")),
        request("HEAD", "/channels/main/events", **headers),
    ]


def mutants(seed: int, count: int, valid: Sequence[bytes]) -> Iterator[bytes]:
    """`count` mutated requests, going round the valid ones; every hundredth is swollen."""
    rng = random.Random(seed)
    for number in range(count):
        data = valid[number % len(valid)]
        if number % 100 == 0:
            data = _swell(rng, data, valid)
        for _ in range(rng.choice((1, 1, 1, 2, 2, 4))):
            data = rng.choice(OPERATIONS)(rng, data, valid) or b"\x00"
        yield data
