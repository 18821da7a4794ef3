"""Subscribing: one poll."""

from aiohttp import web

from notifier.core.errors import NotAcceptable
from notifier.core.topics import TopicList
from notifier.core.wire import parse_poll
from notifier.web.access import address, may_subscribe
from notifier.web.keys import SERVICE


async def subscribe(request: web.Request) -> web.Response:
    may_subscribe(request)
    accept = request.headers.get("Accept", "").lower()
    if "text/event-stream" in accept and "json" not in accept and "*/*" not in accept:
        raise NotAcceptable("Server-sent events are not supported yet: poll for application/json.")
    headers = request.headers
    poll = parse_poll(
        TopicList.parse(request.rel_url.raw_path.removeprefix("/v1/topics/")),
        request.rel_url.raw_query_string,
        headers.getall("Last-Event-ID", []),
        headers.getall("Prefer", []),
    )
    answer = await request.app[SERVICE].poll(poll, address(request))
    response = web.Response(body=answer.body, content_type="application/json")
    if poll.preferred:
        response.headers["Preference-Applied"] = f"wait={poll.wait_s:.0f}"
        response.headers["Vary"] = "Prefer"
    if answer.retry_after_s is not None:
        response.headers["Retry-After"] = str(answer.retry_after_s)
    return response
