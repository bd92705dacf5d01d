"""Reports by Google Pub/Sub.

Owns the publisher of the library, which is optional: nothing imports this module unless a worker reports that way. The
library sends in batches, in a thread of its own, and tries again by itself; so a report may come twice or late, which
its timestamp makes harmless.
"""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlsplit

import grpc
from google.cloud import pubsub_v1
from google.oauth2 import service_account
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport

from apps.jobs.nodes import Away
from handlers.answers import dumps

SEND_SECONDS = 10.0


class ByPubSub:
    """A way for reports (apps/jobs/reporting.py): to a topic. Over plain HTTP it is an emulator's. Raises ValueError
    for credentials that can't be used."""

    answered = False

    def __init__(self, topic: str, url: str, credentials: str | None) -> None:
        self._topic = topic
        try:
            self._publisher = pubsub_v1.PublisherClient(**_options(url, credentials))
        except Exception as error:  # the library's own, of several packages
            raise ValueError(f"the credentials for Pub/Sub cannot be used ({type(error).__name__})") from error

    async def send(self, job_id: str, report: dict[str, Any]) -> None:
        """Publish a report. Raises Away."""
        try:
            sent = self._publisher.publish(self._topic, dumps(report), jobId=job_id)
            async with asyncio.timeout(SEND_SECONDS):
                await asyncio.wrap_future(sent)
        except Exception as error:  # the library's own, of several packages
            raise Away(f"Pub/Sub does not take it ({type(error).__name__})") from error

    async def close(self) -> None:
        """Let go of it."""
        await asyncio.to_thread(self._publisher.stop)


def _options(url: str, credentials: str | None) -> dict[str, Any]:
    parts = urlsplit(url)
    if parts.scheme == "http":
        return {"transport": PublisherGrpcTransport(channel=grpc.insecure_channel(parts.netloc))}
    own = service_account.Credentials.from_service_account_file(credentials) if credentials else None
    return {"client_options": {"api_endpoint": parts.netloc}, "credentials": own}
