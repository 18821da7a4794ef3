"""Publishing: one message, a batch, ntfy's JSON; and reading one message back as it came."""

import re
from collections.abc import Container, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web

from notifier.core import ntfy
from notifier.core.cursors import parse_cursor
from notifier.core.errors import BadRequest, Forbidden, NotFound, Unavailable, UnsupportedMedia
from notifier.core.grants import Grant
from notifier.core.idempotency import check_key, of_later, of_publish
from notifier.core.messages import (
    BYTES,
    Message,
    NewMessage,
    inline_type,
    is_content_type,
    is_json_type,
    media_type,
    plain_type,
)
from notifier.core.publishing import display_fields, from_body, parse_batch, values_from_text
from notifier.core.strict_json import is_json
from notifier.core.times import Later, format_time, parse_later
from notifier.core.topics import check_topic, decode_path
from notifier.core.webhooks.kept import KEPT_AS, headers_of, kept_of
from notifier.offload import offload
from notifier.postgres.history import Stored
from notifier.service import Service
from notifier.web.access import (
    address,
    authorise_publish,
    authorise_subscribe,
    may_publish,
    may_read,
    refuse_strangers,
)
from notifier.web.appkeys import SERVICE
from notifier.web.bodies import with_body
from notifier.wire.headers import header_text
from notifier.wire.json import encode_view
from notifier.wire.requests import parse_query

VIEW = "application/vnd.notifier.message+json"
SANDBOX = "sandbox; default-src 'none'"

# RFC 9218: browsers send `Priority: u=1, i` about the request itself, and proxies from HTTP/2 pass it on.
_REQUEST_PRIORITY = re.compile(r"\s*(u\s*=|i\b)")


async def publish(request: web.Request) -> web.Response:
    topic = check_topic(decode_path(request.rel_url.raw_path.removeprefix("/v1/topics/")))
    service = request.app[SERVICE]
    client = address(request)
    grant = await authorise_publish(request, [topic], lambda grant: service.brakes.publish(grant, client))
    given = _given(request)
    fields = display_fields(values_from_text(given))
    later = parse_later(given["at"]) if "at" in given else None
    content_type = _content_type(request)
    key = _idempotency_key(request)

    async def store(body: bytes) -> web.Response:
        message = await offload(len(body), from_body, topic, body, content_type, fields)
        if not grant.alive:  # it ended while the body arrived, or was read
            await authorise_publish(request, [topic])
        if later is not None:
            answer, known = await _schedule(service, grant, key, message, later)
            return web.json_response(answer, status=200 if known else 202)
        [seq], repeated = await _publish(service, grant, key, [message], len(body))
        # Relative, so that it leads there below any path that a proxy serves us at.
        up = "../" * (request.rel_url.raw_path.count("/") - len(("", "v1")))
        headers = {"Location": f"{up}messages/{seq}"}
        answer = {"id": str(seq), "topic": topic, **repeated}
        return web.json_response(answer, status=200 if repeated else 201, headers=headers)

    return await with_body(request, store)


async def publish_batch(request: web.Request) -> web.Response:
    service = request.app[SERVICE]
    client = address(request)
    # No body is read for a caller that may publish nothing.
    await authorise_publish(request, brake=lambda grant: service.brakes.before_publish(grant, client))
    if given := _given(request):
        if "at" in given:
            raise BadRequest("A batch is published now. /v1/topics/TOPIC takes delay and at.")
        raise BadRequest(f"{min(given)} belongs to the messages of a batch, not to the request.")
    content_type = _content_type(request)
    key = _idempotency_key(request)

    async def store(body: bytes) -> web.Response:
        # A batch of small messages takes several times as long as one body of its size.
        messages = await offload(4 * len(body), parse_batch, body, content_type)
        topics = [message.topic for message in messages]
        grant = await authorise_publish(
            request, topics, lambda grant: service.brakes.publish(grant, client, len(messages))
        )
        seqs, repeated = await _publish(service, grant, key, messages, len(body))
        answer = {"ids": [str(seq) for seq in seqs], **repeated}
        return web.json_response(answer, status=200 if repeated else 201)

    return await with_body(request, store)


async def publish_ntfy(request: web.Request) -> web.Response:
    """What clients of ntfy, such as Apprise, post to the root. They take 200 alone for success."""
    service = request.app[SERVICE]
    client = address(request)
    await authorise_publish(request, brake=lambda grant: service.brakes.before_publish(grant, client))
    # Apprise sends an icon with each message, unless it is told not to: it only shows again what the text says.
    given = _given(request, ignored={"x-icon"})
    _content_type(request)
    key = _idempotency_key(request)

    async def store(body: bytes) -> web.Response:
        message, later = await offload(len(body), ntfy.from_ntfy, body, given)
        grant = await authorise_publish(request, [message.topic], lambda grant: service.brakes.publish(grant, client))
        if later is not None:
            answer, _ = await _schedule(service, grant, key, message, later)
            return web.json_response(answer)
        [seq], repeated = await _publish(service, grant, key, [message], len(body))
        headers = {"Location": f"v1/messages/{seq}"}
        return web.json_response({"id": str(seq), "topic": message.topic, **repeated}, headers=headers)

    return await with_body(request, store)


async def unschedule(request: web.Request) -> web.Response:
    """Take back what is scheduled. What the caller may not publish is not there for it. Ids are numbers that anybody
    can count, so callers without a credential, who do not know one another, take back nothing."""
    service = request.app[SERVICE]
    client = address(request)
    grant = await authorise_publish(request, brake=lambda grant: service.brakes.publish(grant, client))
    refuse_strangers(request, grant)
    scheduled_id = parse_cursor(request.match_info["id"])
    topic = await service.scheduled.topic(scheduled_id)
    if (
        topic is None
        or not await may_publish(request, topic)
        or not await service.scheduled.delete(scheduled_id, topic)
    ):
        raise NotFound("Nothing is scheduled under that id: it was published or taken back, or never was.")
    return web.Response(status=204)


async def _schedule(
    service: Service, grant: Grant, key: str | None, message: NewMessage, later: Later
) -> tuple[dict[str, Any], bool]:
    """The answer to a message that is published later, and whether it had been given before. Forbidden for strangers
    who would have it kept for longer than what is published: anybody could fill the disk for good."""
    if service.callers.is_stranger(grant):
        delay = later if isinstance(later, timedelta) else later - datetime.now(UTC)
        if delay > service.settings.retention:
            raise Forbidden("Without a credential, nothing is published later than what is published now is kept.")
    once = None if key is None else await offload(len(message.body), of_later, grant, key, message, later)
    added = await service.schedule(message, later, once)
    repeated = added.due_s is None
    answer = {"scheduled": str(added.id), "at": format_time(added.at)}
    return answer | ({"duplicate": True} if repeated else {}), repeated


async def _publish(
    service: Service, grant: Grant, key: str | None, messages: Sequence[NewMessage], size: int
) -> tuple[list[int], dict[str, Any]]:
    """Publish `messages`, which are made of `size` bytes, with an idempotency key, if there is one. Their ids, and what
    the answer says besides where they have been published before."""
    once = None if key is None else await offload(size, of_publish, grant, key, messages)
    seqs, duplicate = await service.publish_once(messages, once)
    return seqs, {"duplicate": True} if duplicate else {}


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
    if _wants_view(request):
        shown = await offload(len(stored.body or b""), _view, seq, stored)
        headers = {"Content-Security-Policy": SANDBOX, "Vary": "Accept"}
        return web.Response(body=shown, content_type="application/json", headers=headers)
    beside = kept_of(stored.headers)
    kept = beside.headers if beside else []
    # A webhook that claims to be JSON, and is not, is shown as text; here it has the type that it came with.
    published = next((value for name, value in kept if name == "Content-Type"), stored.content_type)
    # A client cannot tell from the bytes whether it was a proxy that answered.
    headers = {"Notifier-Id": str(seq), "Content-Security-Policy": SANDBOX, "Vary": "Accept"}
    if inline := inline_type(published):
        headers["Content-Type"] = inline
    else:
        # Otherwise it came into the table by another way.
        headers["Content-Type"] = published if published and is_content_type(published) else BYTES
        headers["Content-Disposition"] = f'attachment; filename="message-{seq}"'
    response = web.Response(body=stored.body, headers=headers)
    for name, value in kept:
        response.headers.add(f"{KEPT_AS}{name}", value)
    return response


def _wants_view(request: web.Request) -> bool:
    """Whether the message is asked for as a poll shows it, and not as it came."""
    view = parse_query(request.rel_url.raw_query_string, ("view",)).get("view")
    if view not in {None, "json"}:
        raise BadRequest("view is json, or left out for the body as it came.")
    return view == "json" or VIEW in request.headers.get("Accept", "").lower()


def _view(seq: int, stored: Stored) -> bytes:
    body, content_type = stored.body or b"", stored.content_type
    if is_json_type(content_type) and not is_json(body):
        content_type = plain_type(body)  # as polls do
    headers = headers_of(stored.headers)
    message = Message(seq, stored.topic, stored.time, body, content_type, stored.fields, headers)
    beside = kept_of(stored.headers)
    return encode_view(message, beside and beside.source, bool(beside and beside.verified))


async def _readable(request: web.Request, seq: int, *, whole: bool = False) -> Stored:
    """NotFound where there is no message of that id, or the caller may not read it, and so does not learn whether it
    exists."""
    stored = await request.app[SERVICE].message(seq, whole=whole)
    if stored is None or not await may_read(request, stored.topic):
        raise NotFound("There is no message of that id, or it is older than the retention.")
    return stored


def _idempotency_key(request: web.Request) -> str | None:
    names = ("Idempotency-Key", "X-Idempotency-Key")
    return check_key([value for name in names for value in request.headers.getall(name, [])])


def _content_type(request: web.Request) -> str | None:
    """The type of the body. UnsupportedMedia for a form with files: stored as it is, it would be its envelope."""
    given = request.headers.get("Content-Type")
    if given is not None and media_type(given) == "multipart/form-data":
        raise UnsupportedMedia(
            "This is a form (multipart/form-data), as curl -F sends it. Send the file itself: "
            "curl --data-binary @FILE -H 'Content-Type: image/png' URL; or a text: curl -d 'TEXT' URL."
        )
    return given


def _given(request: web.Request, ignored: Container[str] = ()) -> dict[str, str]:
    """The display fields in headers and query, by their first name. BadRequest for what is given twice, or means
    something that is not built. Headers of the names `ignored` are left out."""
    given: dict[str, str] = {}
    found = [
        (ntfy.PARAMETERS[name], value)
        for name, value in parse_query(request.rel_url.raw_query_string, ntfy.PARAMETERS).items()
    ]
    for name, value in request.headers.items():
        name = name.lower()
        meaning = ntfy.HEADERS.get(name.removeprefix("x-"))
        if meaning is None or name in ignored or (name == "priority" and _REQUEST_PRIORITY.match(value)):
            continue
        found.append((meaning, header_text(value)))
    for meaning, value in found:
        if meaning in given:
            if meaning == "at":
                raise BadRequest("delay, at and in say the same: one of them is given, once.")
            raise BadRequest(f"{meaning} is given twice.")
        given[meaning] = value
    if sentence := ntfy.refusal(given):
        raise BadRequest(sentence)
    return given
