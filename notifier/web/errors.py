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
        except Unauthorized as error:
            slow_down = service.failures.count(address(request), error)
            response = _unauthorized(error) if slow_down is None else _problem(slow_down)
        except NotifierError as error:
            response = _problem(error)
        except web.HTTPException as error:
            response = refusal(error)
        except (ConnectionResetError, web.RequestPayloadError):
            # The client disconnected while it sent its body, or the framing is broken: no client reads this.
            response = problem(400, "bad_request", "The body is incomplete or malformed.")
            response.force_close()
        except Exception:
            # As it was sent: decoded, it may have line feeds, and so make up lines of the log.
            log.exception("unexpected error: %s %s", request.method, request.rel_url.raw_path[:300])
            response = problem(500, "internal", "The server failed; its log says why.")
        if service.draining:
            # aiohttp leaves the connection open, and the client would send its next request to a closing socket.
            response.force_close()
        return response

    return answer_errors


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
