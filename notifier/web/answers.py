"""The answer of a poll as an HTTP response: one for aiohttp to send, or, byte for byte the same, one to be shared."""

from functools import lru_cache

from aiohttp import web
from aiohttp.helpers import rfc822_formatted_time

from notifier.core.wire import Answer, Poll
from notifier.web.errors import dress


def preference(poll: Poll) -> str | None:
    """What `poll` is told by Preference-Applied."""
    return f"wait={poll.wait_s:.0f}" if poll.preferred else None


def respond(answer: Answer, preference: str | None) -> web.Response:
    response = web.Response(body=answer.body, content_type="application/json")
    if preference is not None:
        response.headers["Preference-Applied"] = preference
        response.headers["Vary"] = "Prefer"
    if answer.retry_after_s is not None:
        response.headers["Retry-After"] = str(answer.retry_after_s)
    return response


def render(answer: Answer, preference: str | None, *, closing: bool) -> bytes:
    """The whole response, made once however many polls share it; `closing` if the connection is closed after it."""
    key = (preference, closing)
    rendering = answer.renderings.get(key)
    if rendering is None:
        body = answer.body
        rendering = answer.renderings[key] = b"%b%d\r\nDate: %b\r\n%b\r\n%b" % (
            _front(preference, answer.retry_after_s),
            len(body),
            rfc822_formatted_time().encode(),
            b"Connection: close\r\n" if closing else b"",
            body,
        )
    return rendering


# For each whole number of seconds that a poll may prefer, and each Retry-After.
@lru_cache(maxsize=128)
def _front(preference: str | None, retry_after_s: int | None) -> bytes:
    """The beginning of a response, up to its length."""
    response = respond(Answer((), 0, retry_after_s=retry_after_s), preference)
    dress(response)
    lines = ["HTTP/1.1 200 OK", *(f"{name}: {value}" for name, value in response.headers.items()), "Content-Length: "]
    return "\r\n".join(lines).encode()
