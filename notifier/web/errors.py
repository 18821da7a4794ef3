"""The middleware that turns errors into answers."""

import logging

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from notifier.core.errors import InvalidToken, NotifierError, Unauthorized
from notifier.service import Service
from notifier.web.access import address
from notifier.web.responses import problem, refusal

log = logging.getLogger(__name__)


def answering_errors(service: Service) -> Middleware:
    """The middleware in front of `service`: whatever a handler raises becomes a response."""

    @web.middleware
    async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            response = await handler(request)
        except Exception as error:  # noqa: BLE001 - each kind is told apart there
            response = _answer(error, request, service)
            # Whoever keeps the error (a task whose waiter raised it, a connection that refuses) would keep every frame
            # that it came through, with the body in it, until the garbage collector comes by.
            error.__traceback__ = None
        if service.draining:
            # aiohttp leaves the connection open, and the client would send its next request to a closing socket.
            response.force_close()
        return response

    return answer_errors


def _answer(error: Exception, request: web.Request, service: Service) -> web.Response:
    match error:
        case Unauthorized():
            slow_down = service.failures.count(address(request), error)
            return _unauthorized(error) if slow_down is None else _problem(slow_down)
        case NotifierError():
            return _problem(error)
        case web.HTTPException():
            return refusal(error)
        case ConnectionResetError() | web.RequestPayloadError():
            # The client disconnected while it sent its body, or the framing is broken: no client reads this.
            response = problem(400, "bad_request", "The body is incomplete or malformed.")
            response.force_close()
            return response
        case _:
            # As it was sent: decoded, it may have line feeds, and so make up lines of the log.
            log.error("unexpected error: %s %s", request.method, request.rel_url.raw_path[:300], exc_info=error)
            return problem(500, "internal", "The server failed; its log says why.")


def _problem(error: NotifierError) -> web.Response:
    return problem(error.status, error.code, str(error), error.retry_after_s)


def _unauthorized(error: Unauthorized) -> web.Response:
    response = _problem(error)
    # Not Basic: a browser would answer a script's request with a dialog of its own.
    challenge = 'Bearer realm="notifier"'
    if isinstance(error, InvalidToken):
        challenge += ', error="invalid_token"'  # RFC 6750, section 3.1
    response.headers["WWW-Authenticate"] = challenge
    return response
