"""The Python client: publish messages, and follow topics without losing or repeating one.

    async with Client("http://127.0.0.1:8080") as client:
        await client.publish("orders/42", {"status": "paid"}, title="Paid", tags=["money"])
        async for message in client.subscribe("orders/*", last=10):
            print(message.topic, message.data)

A program of its own: it needs aiohttp and nothing of the server.
"""

from notifier.client.client import Client, NewMessage, Published, Scheduled
from notifier.client.http import NotifierClientError
from notifier.client.messages import Batch, Gap, Message, Page
from notifier.client.subscription import Subscription

__all__ = [
    "Batch",
    "Client",
    "Gap",
    "Message",
    "NewMessage",
    "NotifierClientError",
    "Page",
    "Published",
    "Scheduled",
    "Subscription",
]
