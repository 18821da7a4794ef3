"""Subscribing: one poll."""

from aiohttp import web

from notifier.core.errors import NotAcceptable
from notifier.core.topics import TopicList
from notifier.polling import Wait
from notifier.web.access import address, authorise_subscribe
from notifier.web.appkeys import SERVICE
from notifier.web.handover import HANDOVER
from notifier.web.responses import preference, respond
from notifier.wire.requests import parse_poll


async def subscribe(request: web.Request) -> web.StreamResponse:
    topics = TopicList.parse(request.rel_url.raw_path.removeprefix("/v1/topics/"))
    service = request.app[SERVICE]
    client = address(request)
    items = topics.exact + topics.patterns
    grant = await authorise_subscribe(request, items, lambda grant: service.brakes.poll(grant, client))
    accept = request.headers.get("Accept", "").lower()
    if "text/event-stream" in accept and "json" not in accept and "*/*" not in accept:
        raise NotAcceptable("Server-sent events are not supported yet: poll for application/json.")
    headers = request.headers
    poll = parse_poll(
        topics,
        request.rel_url.raw_query_string,
        headers.getall("Last-Event-ID", []),
        headers.getall("Prefer", []),
    )
    polling = service.polling
    found = await polling.look(poll, client, grant.until)
    while not grant.alive:  # it ended while the table was read
        grant = await authorise_subscribe(request, items)
        found = await polling.look(poll, client, grant.until)
    if isinstance(found, Wait):
        # Nothing has been awaited since `look`, and nothing is until the poll is parked.
        handover = request.app.get(HANDOVER)
        if handover and (handed_over := handover.hand_over(request, poll, found, client, grant)):
            return handed_over
        found = await polling.wait(poll, found, client, grant)
    return respond(found, preference(poll))
