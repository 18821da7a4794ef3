"""From errors to RFC 9457 answers, and the headers that every response has."""

import json
import logging
from http import HTTPStatus

from aiohttp import web
from aiohttp.typedefs import Handler

from notifier.core.errors import NotifierError
from notifier.web.keys import SERVICE

log = logging.getLogger(__name__)

# Codes of what aiohttp itself refuses.
_CODES = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}
_DETAILS = {
    404: "There is nothing at this path. The README lists what there is.",
    405: "This path does not take this method; the Allow header lists those that it does.",
}


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        response = await handler(request)
    except NotifierError as error:
        response = problem(error.status, error.code, str(error), error.retry_after_s)
        if error.status == HTTPStatus.UNAUTHORIZED:
            # Not Basic: a browser would answer a script's request with a dialog of its own.
            response.headers["WWW-Authenticate"] = 'Bearer realm="notifier"'
    except web.HTTPException as error:
        response = refusal(error)
    except (ConnectionResetError, web.RequestPayloadError):
        # The client went away while it sent its body, or sent something else than HTTP says: nobody to answer.
        response = problem(400, "bad_request", "The body is incomplete or malformed.")
        response.force_close()
    except Exception:
        log.exception("unexpected error: %s %s", request.method, request.path)
        response = problem(500, "internal", "Something is wrong with the server; its log says what.")
    if request.app[SERVICE].draining:
        # aiohttp leaves the connection open, and the client would send its next request into a closing socket.
        response.force_close()
    return response


def dress(response: web.StreamResponse) -> None:
    """Give `response` the headers that all have."""
    headers = response.headers
    headers["Server"] = "notifier"  # instead of the versions of Python and aiohttp
    headers.setdefault("Cache-Control", "no-store")
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Referrer-Policy"] = "no-referrer"


def refusal(error: web.HTTPException) -> web.Response:
    """The answer to what aiohttp itself refuses."""
    response = problem(error.status, _CODES.get(error.status, "error"), _DETAILS.get(error.status, error.reason))
    if "Allow" in error.headers:
        response.headers["Allow"] = error.headers["Allow"]
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
