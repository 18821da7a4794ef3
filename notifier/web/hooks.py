"""Webhooks: verified over the raw bytes before anything is parsed, then published like anything else."""

from aiohttp import web

from notifier.core.errors import BadSignature, NotFound
from notifier.core.messages import NewMessage
from notifier.core.publishing import from_body, webhook_headers
from notifier.core.webhooks import Source, is_name, kept_headers, topic_for, verify
from notifier.offload import offload
from notifier.web.appkeys import SERVICE
from notifier.web.bodies import with_body


async def hook(request: web.Request) -> web.Response:
    service = request.app[SERVICE]
    name = request.match_info["source"]
    if not is_name(name):
        raise NotFound("There is no source of that name, and there cannot be one.")
    if not request.content.is_eof() and not service.sources.knows(name):
        # Nothing of the body is read for a source that may not exist. A known one is not looked up first: a sender that
        # does not wait for the answer would be gone meanwhile.
        await service.source(name)
    headers = request.raw_headers
    content_type = request.headers.get("Content-Type")

    def read(source: Source, body: bytes) -> NewMessage:
        try:
            verify(source, headers, body)
        except BadSignature as error:
            error.reason = f"{error.reason} for the source {source.name}"
            raise
        kept = webhook_headers(kept_headers(headers))
        return from_body(topic_for(source, headers, body), body, content_type, headers=kept, lenient=True)

    async def publish(body: bytes) -> web.Response:
        message = await offload(len(body), read, await service.source(name), body)
        [seq] = await service.publish([message])
        return web.json_response({"id": str(seq), "topic": message.topic})

    # Some senders do not wait for an answer; their webhooks are published all the same.
    return await with_body(request, publish)
