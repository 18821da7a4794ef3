"""Webhooks: verified over the raw bytes before anything is parsed, then published like anything else."""

import asyncio
import time

from aiohttp import web

from notifier.core.errors import BadSignature, NotFound, NotifierError, OutcomeUnknown
from notifier.core.webhooks import receive
from notifier.core.webhooks.delivery import Delivery
from notifier.core.webhooks.handshakes import Reply, allowed, answer
from notifier.core.webhooks.sources import Source, is_name
from notifier.offload import offload
from notifier.service import Service
from notifier.web.access import address
from notifier.web.appkeys import SERVICE
from notifier.web.bodies import with_body
from notifier.web.origins import allow

# From the last byte of a webhook to the answer: GitHub, Shopify and others give up after 10 s or less.
ANSWER_S = 8.0


async def hook(request: web.Request) -> web.Response:
    service = request.app[SERVICE]
    name = request.match_info["source"]
    if not is_name(name):
        raise NotFound("There is no source of that name, and there cannot be one.")
    try:
        return await _receive(request, service, name)
    except NotifierError as error:
        if error.status < 500:
            reason = error.reason if isinstance(error, BadSignature) else error.code
            service.refusals.count(name, address(request), reason, known=service.sources.knows(name))
        raise


async def _receive(request: web.Request, service: Service, name: str) -> web.Response:
    if not request.content.is_eof() and not service.sources.knows(name):
        # Nothing of the body is read for a source that may not exist. A known one is not looked up first: a sender that
        # does not wait for the answer would be gone meanwhile.
        _found(await service.sources.find(name))

    async def publish(body: bytes) -> web.Response:
        try:
            async with asyncio.timeout(ANSWER_S):
                read = await _read(service, name, _delivery(request, body))
                if isinstance(read, Reply):
                    return _respond(read)
                [seq], duplicate = await service.publish_once([read.message], read.once)
        except TimeoutError:
            raise OutcomeUnknown("The database is too slow: the webhook may or may not be stored.") from None
        return web.json_response({"id": str(seq), "duplicate": True} if duplicate else {"id": str(seq)})

    # Some senders do not wait for an answer; their webhooks are published all the same.
    return await with_body(request, publish)


async def probe(request: web.Request) -> web.Response:
    """GET, HEAD and OPTIONS: senders ask whether this address is theirs to call. Nothing is published."""
    delivery = _delivery(request, b"")
    asks = allowed(delivery)
    if request.method == "OPTIONS" and asks is None:
        return web.Response(status=204, headers={"Allow": allow({"GET", "HEAD", "POST"})})
    service = request.app[SERVICE]
    name = request.match_info["source"]
    source = _found(await service.sources.current(name) if is_name(name) else None)
    if request.method == "OPTIONS" and asks is not None:
        return _respond(asks)
    # HEAD asks for nothing that is signed.
    reply = answer(request.method, source.scheme, source.secrets, source.options, delivery, signed=False)
    return _respond(reply or Reply(b"Webhooks are posted here.\n"))


async def _read(service: Service, name: str, delivery: Delivery) -> receive.Read | Reply:
    source = _found(await service.sources.current(name))
    try:
        return await offload(len(delivery.body), receive.read, source, delivery, time.time())
    except BadSignature:
        # What is remembered may lack a secret that was added a moment ago.
        newest = _found(await service.sources.find(name))
        if newest == source:
            raise
        return await offload(len(delivery.body), receive.read, newest, delivery, time.time())


def _delivery(request: web.Request, body: bytes) -> Delivery:
    query = request.rel_url.raw_query_string.encode(errors="surrogateescape")
    return Delivery(request.raw_headers, body, query)


def _respond(reply: Reply) -> web.Response:
    headers = {"Content-Security-Policy": "sandbox; default-src 'none'", **reply.headers}
    return web.Response(body=reply.body, content_type=reply.content_type, charset="utf-8", headers=headers)


def _found(source: Source | None) -> Source:
    if source is None:
        raise NotFound("There is no source of that name. Sources are made by `notifier source add`.")
    return source
