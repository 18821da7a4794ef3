"""Everything that can go wrong with a request, each with the HTTP status and the stable code of RFC 9457 answers.

NotifierError
├── BadRequest 400 ── InvalidTopic, InvalidCursor, InvalidJSON
├── Unauthorized 401 ── InvalidToken (EndedToken), BadSignature
├── Forbidden 403
├── NotFound 404
├── NotAcceptable 406
├── SlowRequest 408
├── TooLarge 413
├── UnsupportedMedia 415
├── Unprocessable 422 ── InvalidMessage, InvalidSource, InvalidKey, TooBroad,
│                         IdempotencyConflict
├── TooManyRequests 429 (`retry_after_s`)
├── HeadTooLarge 431
├── Unavailable 503 (`retry_after_s`; nothing was stored)
└── OutcomeUnknown 504 (the database went away between commit and answer)
"""

from math import ceil


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
    """`reason` is for the log: a few fixed words, nothing that a request says."""

    status = 401
    code = "unauthorized"
    reason = "no credential"


class InvalidToken(Unauthorized):
    """A credential that is malformed, unknown, expired or revoked."""

    code = "invalid_token"
    reason = "a wrong credential"


class EndedToken(InvalidToken):
    """A credential that was good until it expired or was revoked, and so is not a guess."""

    reason = "a credential that has ended"


class BadSignature(Unauthorized):
    code = "bad_signature"
    reason = "a bad signature"


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


class IdempotencyConflict(Unprocessable):
    """The key stands for another request."""

    code = "idempotency_conflict"


class TooManyRequests(NotifierError):
    """Slow down: `retry_after_s` says for how long."""

    status = 429
    code = "too_many_requests"

    def __init__(self, text: str, wait_s: float) -> None:
        super().__init__(text)
        self.retry_after_s = max(1, ceil(wait_s))


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
