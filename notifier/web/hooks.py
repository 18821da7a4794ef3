"""Webhooks: verified over the raw bytes before anything is parsed, then published like anything else."""

from aiohttp import web

from notifier.core.errors import NotFound
from notifier.core.messages import from_body, webhook_headers
from notifier.core.webhooks import is_name, kept_headers, topic_for, verify
from notifier.web.bodies import read_body
from notifier.web.keys import SERVICE


async def hook(request: web.Request) -> web.Response:
    service = request.app[SERVICE]
    name = request.match_info["source"]
    if not is_name(name):
        raise NotFound("There is no source of that name, and there cannot be one.")
    source = await service.source(name)
    body = await read_body(request, service.settings.max_body)
    verify(source, request.raw_headers, body)
    message = from_body(
        topic_for(source, request.raw_headers, body),
        body,
        request.headers.get("Content-Type"),
        headers=webhook_headers(kept_headers(request.raw_headers)),
        lenient=True,
    )
    [seq] = await service.publish([message])
    return web.json_response({"id": str(seq), "topic": message.topic})
