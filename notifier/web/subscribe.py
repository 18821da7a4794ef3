"""Subscribing: one poll, or a stream."""

from dataclasses import replace
from typing import NamedTuple

from aiohttp import web
from aiohttp.http import HttpVersion, HttpVersion11, RawRequestMessage
from multidict import CIMultiDictProxy

from notifier.core.errors import BadRequest, NotifierError, Unavailable
from notifier.core.grants import Grant
from notifier.core.polls import After, Answer, Before, Poll
from notifier.core.topics import TopicList
from notifier.polling import Polling, Wait
from notifier.web.access import ACCESS, address, authorise_subscribe
from notifier.web.appkeys import SERVICE
from notifier.web.handover import HANDOVER, First
from notifier.web.origins import ORIGINS
from notifier.web.responses import add_default_headers, preference, respond
from notifier.web.streams import Wanted, in_handler
from notifier.wire.accept import accepted
from notifier.wire.json import encode_answer
from notifier.wire.requests import parse_poll

TOPICS = "/v1/topics/"


async def subscribe(request: web.Request) -> web.StreamResponse:
    topics = TopicList.parse(request.rel_url.raw_path.removeprefix(TOPICS))
    service = request.app[SERVICE]
    client = address(request)
    items = topics.exact + topics.patterns
    grant = await authorise_subscribe(request, items, lambda grant: service.brakes.poll(grant, client))
    headers = request.headers
    stream = accepted(headers.getall("Accept", []))
    poll = parse_poll(
        topics,
        request.rel_url.raw_query_string,
        headers.getall("Last-Event-ID", []),
        headers.getall("Prefer", []),
    )
    if stream:
        if isinstance(poll.begin, Before):
            raise BadRequest(
                "A stream goes forwards. Ask for a page of the past (before) with Accept: application/json."
            )
        poll = replace(poll, wait_s=0, preferred=False)  # it begins at once
        if poll.headers:
            stream = stream.with_headers
    polling = service.polling
    found = await _look(polling, poll, client, grant, is_stream=stream is not None)
    while not grant.alive:  # it ended while the table was read
        grant = await authorise_subscribe(request, items)
        found = await _look(polling, poll, client, grant, is_stream=stream is not None)
    handover = request.app.get(HANDOVER)
    if stream and isinstance(found, Answer):
        wanted = Wanted(poll, stream, client, grant)
        if handover and (handed_over := handover.hand_over_stream(request, wanted, found)):
            return handed_over
        return await in_handler(request, service, wanted, found, request.app[ORIGINS].headers(request))
    # Nothing has been awaited since `look`, and nothing is until the poll is parked.
    collapsed = _may_be_collapsed(request)
    if collapsed and isinstance(found, Wait):
        return await _in_two_parts(request, poll, found, client, grant)
    # One of a crowd that comes back, and gets what it has missed, polls again with the same bytes but for the cursor.
    goes_on = isinstance(found, Wait) or (bool(found.messages) and isinstance(poll.begin, After) and not collapsed)
    if goes_on and handover and (handed_over := handover.hand_over(request, poll, found, client, grant)):
        return handed_over
    if isinstance(found, Wait):
        found = await polling.wait(poll, found, client, grant)
    return respond(found, preference(poll), headers=poll.headers)


async def _look(polling: Polling, poll: Poll, client: str, grant: Grant, *, is_stream: bool) -> Answer | Wait:
    try:
        return await polling.look(poll, client, grant.until)
    except Unavailable:
        # EventSource gives up for good when it is refused. A stream that knows where to begin waits, as one that runs.
        if is_stream and isinstance(poll.begin, After) and polling.may_wait(poll.topics):
            return Answer((), poll.begin.cursor)
        raise


class _Head(NamedTuple):
    """A request that aiohttp's parser has read, and its handler has not seen."""

    app: web.Application
    remote: str
    headers: CIMultiDictProxy[str]
    version: HttpVersion


def first_poll(app: web.Application, message: RawRequestMessage, peer: str) -> First | None:
    """The poll that a GET without a body is, as `subscribe` reads it; None where that would do more than to look for
    messages: refuse it, verify a token, ask a policy, begin a stream, or answer a shared cache in two parts."""
    path = message.url.raw_path
    if not path.startswith(TOPICS) or not message.path.startswith(TOPICS) or "Expect" in message.headers:
        return None
    request = _Head(app, peer, message.headers, message.version)
    if _may_be_collapsed(request):
        return None
    headers = message.headers
    try:
        topics = TopicList.parse(path.removeprefix(TOPICS))
        grant = app[ACCESS].known_subscriber(request)
        if (
            grant is None
            or grant.may_not_subscribe(topics.exact + topics.patterns)
            or accepted(headers.getall("Accept", []))
        ):
            return None
        query, events = message.url.raw_query_string, headers.getall("Last-Event-ID", [])
        poll = parse_poll(topics, query, events, headers.getall("Prefer", []))
        return First(poll, address(request), grant)
    except NotifierError:
        return None


def _may_be_collapsed(request: web.Request | _Head) -> bool:
    """Whether a shared cache holds requests like this one back until the first of them has been answered.

    Varnish does, for all that it may look up, and tells of itself. A poll from `latest` that is held back would begin
    when it gets through, and so miss what was published meanwhile. Varnish looks up nothing that has a credential or
    a cookie, and so need not be told.
    """
    headers = request.headers
    return (
        "X-Varnish" in headers
        and "Authorization" not in headers
        and "Cookie" not in headers
        and request.version == HttpVersion11  # chunks are new in it
    )


async def _in_two_parts(request: web.Request, poll: Poll, wait: Wait, client: str, grant: Grant) -> web.StreamResponse:
    """Park `poll`, and send the head of its answer at once: it says no-store, so that the cache lets the others pass.
    What follows is 200 in any case."""
    response = web.StreamResponse(headers=respond(Answer((), wait.cursor), preference(poll)).headers)
    add_default_headers(response, request.app[ORIGINS].headers(request))
    response.enable_chunked_encoding()
    polling = request.app[SERVICE].polling
    answer = await polling.wait(poll, wait, client, grant, parked=lambda: response.prepare(request))
    await response.write_eof(encode_answer(answer, headers=poll.headers))
    return response
