"""What happens: how many messages came in the last hour, and how many clients wait for more."""

import asyncio
from datetime import UTC, datetime

from aiohttp import web

from notifier.core.counts import Counts, count
from notifier.core.errors import Forbidden, Unavailable
from notifier.core.topics import TopicList
from notifier.service import Service
from notifier.web.access import address, authorise_subscribe
from notifier.web.appkeys import SERVICE
from notifier.wire.json import encode_counts, encode_waiting
from notifier.wire.requests import parse_list


async def counts(request: web.Request) -> web.StreamResponse:
    match = parse_list(request.rel_url.raw_query_string)
    service = request.app[SERVICE]
    items = match.exact + match.patterns
    client = address(request)
    grant = await authorise_subscribe(request, items, lambda grant: service.brakes.poll(grant, client))
    while True:
        counted = await _count(service, match)
        if grant.alive:
            return _json(encode_counts(counted))
        grant = await authorise_subscribe(request, items)  # it ended meanwhile


async def _count(service: Service, match: TopicList) -> Counts:
    """In steps, between which others have their turn."""
    if not service.tail.up:
        raise Unavailable("What was published in the last minutes is not known at the moment. Try again.")
    counting = count(service.window, match, datetime.now(UTC))
    while True:
        try:
            next(counting)
        except StopIteration as done:
            counted: Counts = done.value
            return counted
        await asyncio.sleep(0)


async def waiting(request: web.Request) -> web.StreamResponse:
    service = request.app[SERVICE]
    client = address(request)
    grant = await authorise_subscribe(request, (), lambda grant: service.brakes.poll(grant, client))
    if not grant.admin:
        raise Forbidden("Only an admin may see who waits.")
    return _json(encode_waiting(service.lot.waiting(), service.settings.processes))


def _json(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json")
