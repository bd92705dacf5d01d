"""Publishing from other Python processes.

`Publisher` goes through a node over HTTP; `RedisPublisher` writes to the nodes' Redis itself, for processes that stand
beside it. Both try again for as long as they are told to, under one idempotency key, so that an event whose answer was
lost is there once.

    from ringcast import Publisher

    with Publisher("http://127.0.0.1:8888", token=token) as publisher:
        event_id = publisher.publish("items/4151", {"high": 1203})
"""

from ringcast.events import make_event
from ringcast.http_publisher import Publisher, publish
from ringcast.redis_publisher import RedisPublisher
from server.commands.posting import PublishFailed
from server.event import Event, InvalidEvent

__all__ = ["Event", "InvalidEvent", "PublishFailed", "Publisher", "RedisPublisher", "make_event", "publish"]
