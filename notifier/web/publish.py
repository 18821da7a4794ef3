"""Publishing: one message, a batch, and reading one message back as it came."""

import json
import re

from aiohttp import web

from notifier.core.cursors import parse_cursor
from notifier.core.errors import BadRequest, NotFound, Unavailable
from notifier.core.messages import is_json_type, media_type
from notifier.core.publishing import LATER, fields_from_text, from_body, parse_batch
from notifier.core.topics import check_topic, decode_path
from notifier.offload import offload
from notifier.postgres.history import Stored
from notifier.web.access import address, authorise_publish, authorise_subscribe, may_read
from notifier.web.appkeys import SERVICE
from notifier.web.bodies import with_body
from notifier.wire.requests import parse_query

FIELDS = ("title", "click", "priority", "tags")

# RFC 9218: browsers send `Priority: u=1, i` about the request itself, and proxies from HTTP/2 pass it on.
_REQUEST_PRIORITY = re.compile(r"\s*(u\s*=|i\b)")


async def publish(request: web.Request) -> web.Response:
    topic = check_topic(decode_path(request.rel_url.raw_path.removeprefix("/v1/topics/")))
    service = request.app[SERVICE]
    client = address(request)
    grant = await authorise_publish(request, [topic], lambda grant: service.brakes.publish(grant, client))
    fields = fields_from_text(_given(request))
    content_type = request.headers.get("Content-Type")

    async def store(body: bytes) -> web.Response:
        if not grant.alive:  # it ended while the body arrived
            await authorise_publish(request, [topic])
        message = await offload(len(body), from_body, topic, body, content_type, fields)
        [seq] = await service.publish([message])
        headers = {"Location": f"/v1/messages/{seq}"}
        return web.json_response({"id": str(seq), "topic": topic}, status=201, headers=headers)

    return await with_body(request, store)


async def publish_batch(request: web.Request) -> web.Response:
    service = request.app[SERVICE]
    client = address(request)
    # No body is read for a caller that may publish nothing.
    await authorise_publish(request, brake=lambda grant: service.brakes.before_publish(grant, client))
    if given := _given(request):
        raise BadRequest(f"{min(given)} belongs to the messages of a batch, not to the request.")
    content_type = request.headers.get("Content-Type")

    async def store(body: bytes) -> web.Response:
        # A batch of small messages takes several times as long as one body of its size.
        messages = await offload(4 * len(body), parse_batch, body, content_type)
        topics = [message.topic for message in messages]
        await authorise_publish(request, topics, lambda grant: service.brakes.publish(grant, client, len(messages)))
        seqs = await service.publish(messages)
        return web.json_response({"ids": [str(seq) for seq in seqs]}, status=201)

    return await with_body(request, store)


async def message(request: web.Request) -> web.Response:
    """The bytes of one message. Any publisher may have sent them, so a browser must neither guess their type nor run
    them."""
    grant = await authorise_subscribe(request)
    seq = parse_cursor(request.match_info["id"])
    service = request.app[SERVICE]
    service.brakes.poll(grant, address(request))
    if service.memory.full:
        raise Unavailable("The server is short of memory at the moment. Try again.")
    stored = await _readable(request, seq)
    if stored.body is None:
        # Not before: how long that takes, and the memory, is for a caller that may read it.
        stored = await _readable(request, seq, whole=True)
    content_type = stored.content_type or "application/json"
    headers = {
        "Content-Type": content_type,
        "Content-Security-Policy": "sandbox; default-src 'none'",
    }
    if not is_json_type(content_type) and media_type(content_type) != "text/plain":
        headers["Content-Disposition"] = f'attachment; filename="message-{seq}"'
    response = web.Response(body=stored.body, headers=headers)
    for name, value in json.loads(stored.headers or "[]"):
        response.headers.add(f"Notifier-Header-{name}", value)
    return response


async def _readable(request: web.Request, seq: int, *, whole: bool = False) -> Stored:
    """NotFound where there is no message of that id, or the caller may not read it, and so does not learn whether it
    exists."""
    stored = await request.app[SERVICE].message(seq, whole=whole)
    if stored is None or not await may_read(request, stored.topic):
        raise NotFound("There is no message of that id, or it is older than the retention.")
    return stored


def _given(request: web.Request) -> dict[str, str]:
    """The display fields in headers and query. BadRequest for a name that is given twice or not supported yet."""
    given = parse_query(request.rel_url.raw_query_string, (*FIELDS, *LATER))
    for name in (*FIELDS, *LATER):
        values = request.headers.getall(name, [])
        if name == "priority":
            values = [value for value in values if not _REQUEST_PRIORITY.match(value)]
        if len(values) + (name in given) > 1:
            raise BadRequest(f"{name} is given twice.")
        if values:
            given[name] = values[0]
    if later := [name for name in LATER if name in given]:
        raise BadRequest(f"{later[0]} is not supported yet.")
    return given
