"""Topics by name, and what is scheduled."""

import asyncio

from aiohttp import web

from notifier.polling import GRACE_S
from notifier.web.access import address, authorise_publish, authorise_subscribe, refuse_strangers
from notifier.web.appkeys import SERVICE
from notifier.wire.json import encode_listing, encode_schedule
from notifier.wire.requests import parse_listing, parse_schedule


async def topics(request: web.Request) -> web.StreamResponse:
    match, after, limit = parse_listing(request.rel_url.raw_query_string)
    service = request.app[SERVICE]
    items = match.exact + match.patterns
    client = address(request)
    grant = await authorise_subscribe(request, items, lambda grant: service.brakes.poll(grant, client))
    while True:
        deadline = asyncio.get_running_loop().time() + GRACE_S
        listing = await service.history.listing(match, after, limit, deadline)
        if grant.alive:
            return web.Response(body=encode_listing(listing), content_type="application/json")
        grant = await authorise_subscribe(request, items)  # it ended while the table was read


async def scheduled(request: web.Request) -> web.StreamResponse:
    """For callers that may publish there, and so take it back. Those need not be allowed to read what others have
    published: the bodies and their titles are not told."""
    match, after, limit = parse_schedule(request.rel_url.raw_query_string)
    service = request.app[SERVICE]
    items = match.exact + match.patterns
    client = address(request)
    grant = await authorise_publish(request, items, lambda grant: service.brakes.poll(grant, client))
    refuse_strangers(request, grant)
    while True:
        deadline = asyncio.get_running_loop().time() + GRACE_S
        schedule = await service.scheduled_page(match, after, limit, deadline)
        if grant.alive:
            return web.Response(body=encode_schedule(schedule), content_type="application/json")
        grant = await authorise_publish(request, items)  # it ended while the table was read
