"""aiohttp's handler of a connection, with the same answers as everywhere for what it refuses by itself, and a bound on
how long an answer may take to send. It overrides `handle_error` and `finish_response` of aiohttp's RequestHandler."""

import asyncio
import logging

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from notifier.web.errors import dress, problem, refusal

log = logging.getLogger(__name__)

# A client that has not read its answer after so long gets no more of it: some MiB of memory wait with each.
SEND_S = 60.0

# 100 topics of 255 characters, percent-encoded, are one line.
MAX_LINE = 128 * 1024


class Handler(RequestHandler):
    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - it quotes the request
    ) -> web.StreamResponse:
        """The answer to what aiohttp's parser refuses. Its own would show, and log with a traceback, the headers that
        it could not parse; a key may be among them."""
        if request.writer.output_size > 0:
            raise ConnectionError("part of another answer has been sent")
        log.info("refused a malformed request: %s", type(exc).__name__)
        detail = "This is not HTTP as it should be, or its headers are too long."
        response = problem(status, "bad_request" if status == 400 else "error", detail)
        response.force_close()
        return response

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        if isinstance(resp, web.HTTPException):
            resp = refusal(resp)  # raised outside of any handler: an Expect that cannot be met
        dress(resp)
        try:
            async with asyncio.timeout(SEND_S):
                return await super().finish_response(request, resp, start_time)
        except TimeoutError:
            if self.transport is not None:
                self.transport.abort()
            return resp, True
