"""Everything that can go wrong with a request, each with the HTTP status and the stable code of RFC 9457 answers.

NotifierError
├── BadRequest 400 ── InvalidTopic, InvalidCursor, InvalidJSON
├── Unauthorized 401 ── InvalidToken, BadSignature
├── Forbidden 403
├── NotFound 404
├── NotAcceptable 406
├── SlowRequest 408
├── TooLarge 413
├── UnsupportedMedia 415
├── Unprocessable 422 ── InvalidMessage, InvalidSource, InvalidKey, TooBroad
├── TooManyRequests 429 (`retry_after_s`)
├── HeadTooLarge 431
├── Unavailable 503 (`retry_after_s`; nothing was stored)
└── OutcomeUnknown 504 (the database went away between commit and answer)
"""


class NotifierError(Exception):
    """A request that cannot be served. `str(error)` is a sentence for the client; it never holds a secret."""

    status = 500
    code = "internal"
    retry_after_s: int | None = None


class BadRequest(NotifierError):
    status = 400
    code = "bad_request"


class InvalidTopic(BadRequest):
    code = "invalid_topic"


class InvalidCursor(BadRequest):
    code = "invalid_cursor"


class InvalidJSON(BadRequest):
    code = "invalid_json"


class Unauthorized(NotifierError):
    status = 401
    code = "unauthorized"


class InvalidToken(Unauthorized):
    """A credential that is malformed, unknown, expired or revoked."""

    code = "invalid_token"


class BadSignature(Unauthorized):
    code = "bad_signature"


class Forbidden(NotifierError):
    status = 403
    code = "forbidden"


class NotFound(NotifierError):
    status = 404
    code = "not_found"


class NotAcceptable(NotifierError):
    status = 406
    code = "not_acceptable"


class SlowRequest(NotifierError):
    status = 408
    code = "slow_request"


class TooLarge(NotifierError):
    status = 413
    code = "too_large"


class UnsupportedMedia(NotifierError):
    status = 415
    code = "unsupported_media_type"


class Unprocessable(NotifierError):
    status = 422
    code = "unprocessable"


class InvalidMessage(Unprocessable):
    code = "invalid_message"


class InvalidSource(Unprocessable):
    code = "invalid_source"


class InvalidKey(Unprocessable):
    code = "invalid_key"


class TooBroad(Unprocessable):
    code = "too_broad"


class TooManyRequests(NotifierError):
    """Slow down: `retry_after_s` says for how long."""

    status = 429
    code = "too_many_requests"

    def __init__(self, text: str, retry_after_s: int) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


class HeadTooLarge(NotifierError):
    status = 431
    code = "head_too_large"


class Unavailable(NotifierError):
    """Try again: nothing was stored."""

    status = 503
    code = "unavailable"
    retry_after_s = 2


class OutcomeUnknown(NotifierError):
    """The connection broke between commit and answer: the message may or may not be stored."""

    status = 504
    code = "outcome_unknown"
