"""Responses: the headers of all, a poll's answer (sent by aiohttp or, byte for byte the same, shared), the beginning of
a stream, and errors as in RFC 9457."""

import json
from functools import lru_cache
from http import HTTPStatus

from aiohttp import web
from aiohttp.helpers import rfc822_formatted_time

from notifier.core.polls import Answer, Poll
from notifier.web.origins import Cors, allow
from notifier.wire.json import encode_answer
from notifier.wire.streams import Encoding

# A body above this is written apart from its head, so that it is one object for all that get it.
APART = 16 * 1024

# Codes of what aiohttp itself refuses.
_CODES = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}
_DETAILS = {
    404: "There is nothing at this path. The README lists what there is.",
    405: "This path does not take this method; the Allow header lists those that it does.",
}


_ANSWER = web.ResponseKey("answer", Answer)


class Variant:
    """What makes answers with the same messages different: the value of Preference-Applied, what the page's browser
    must be told, and whether webhooks are shown with their headers. Equal ones are one object, so comparing them costs
    nothing."""

    __slots__ = ("cors", "headers", "preference")

    def __init__(self, preference: str | None, cors: Cors, headers: bool) -> None:
        self.preference = preference
        self.cors = cors
        self.headers = headers


# Some 30 preferences for each origin that is allowed.
@lru_cache(maxsize=4096)
def variant(preference: str | None, cors: Cors, headers: bool = False) -> Variant:
    return Variant(preference, cors, headers)


def preference(poll: Poll) -> str | None:
    """The value of Preference-Applied for `poll`."""
    return f"wait={poll.wait_s:.0f}" if poll.preferred else None


def respond(answer: Answer, preference: str | None, *, headers: bool = False) -> web.Response:
    response = web.Response(body=encode_answer(answer, headers=headers), content_type="application/json")
    response[_ANSWER] = answer  # until it is sent, equal polls get the same bytes
    if preference is not None:
        response.headers["Preference-Applied"] = preference
        response.headers["Vary"] = "Prefer"
    if answer.retry_after_s is not None:
        response.headers["Retry-After"] = str(answer.retry_after_s)
    return response


def render(answer: Answer, variant: Variant, *, closing: bool) -> tuple[bytes, bytes]:
    """The whole response, made once however many polls share it; `closing` if the connection is closed after it.

    A large body comes apart from its head, and is one object for all; a small one stands behind it: one write is
    cheaper.
    """
    key = (variant, closing)
    rendering: tuple[bytes, bytes] | None = answer.renderings.get(key)
    if rendering is None:
        body = encode_answer(answer, headers=variant.headers)
        head = b"%b%d\r\nDate: %b\r\n%b\r\n" % (
            _front(variant, answer.retry_after_s),
            len(body),
            rfc822_formatted_time().encode(),
            b"Connection: close\r\n" if closing else b"",
        )
        rendering = answer.renderings[key] = (head, body) if len(body) > APART else (head + body, b"")
    return rendering


# For the variants in use, and each Retry-After.
@lru_cache(maxsize=512)
def _front(variant: Variant, retry_after_s: int | None) -> bytes:
    """The beginning of a response, up to its length."""
    response = respond(Answer((), 0, retry_after_s=retry_after_s), variant.preference)
    add_default_headers(response, variant.cors)
    lines = ["HTTP/1.1 200 OK", *(f"{name}: {value}" for name, value in response.headers.items()), "Content-Length: "]
    return "\r\n".join(lines).encode()


def stream_head(encoding: Encoding, cors: Cors) -> bytes:
    """What comes before the first chunk of a stream, as aiohttp would send it."""
    date = rfc822_formatted_time().encode()
    return b"%bDate: %b\r\nConnection: close\r\n\r\n" % (_stream_front(encoding, cors), date)


# For each origin.
@lru_cache(maxsize=512)
def _stream_front(encoding: Encoding, cors: Cors) -> bytes:
    headers = stream_response(encoding, cors).headers
    lines = ["HTTP/1.1 200 OK", *(f"{name}: {value}" for name, value in headers.items()), "Transfer-Encoding: chunked"]
    return "".join(f"{line}\r\n" for line in lines).encode()


def stream_response(encoding: Encoding, cors: Cors) -> web.StreamResponse:
    # nginx sends on what comes, and does not wait for more, where that header tells it.
    response = web.StreamResponse(headers={"Content-Type": encoding.content_type, "X-Accel-Buffering": "no"})
    add_default_headers(response, cors)
    return response


def add_default_headers(response: web.StreamResponse, cors: Cors) -> None:
    """Add the headers that all responses have, and `cors`, except where a handler lets every page read its response."""
    headers = response.headers
    headers["Server"] = "notifier"  # instead of the versions of Python and aiohttp
    headers.setdefault("Cache-Control", "no-store")
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Referrer-Policy"] = "no-referrer"
    if "Access-Control-Allow-Origin" not in headers:
        for name, value in cors:
            if name == "Vary" and name in headers:
                headers[name] = f"{headers[name]}, {value}"
            else:
                headers.setdefault(name, value)


def refusal(error: web.HTTPException) -> web.Response:
    """The answer to what aiohttp itself refuses."""
    response = problem(error.status, _CODES.get(error.status, "error"), _DETAILS.get(error.status, error.reason))
    if isinstance(error, web.HTTPMethodNotAllowed):
        response.headers["Allow"] = allow(error.allowed_methods)
    return response


def problem(status: int, code: str, detail: str, retry_after_s: int | None = None) -> web.Response:
    """An RFC 9457 answer: `code` is for programs and stays, `detail` is for people."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
    }
    headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
    return web.Response(
        status=status, headers=headers, body=json.dumps(body).encode(), content_type="application/problem+json"
    )
