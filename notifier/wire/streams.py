"""What the encodings of streams have in common."""

from collections.abc import Callable

from notifier.core.messages import Message
from notifier.core.polls import Answer, Gap
from notifier.wire.json import encode_message, with_headers

# In JSON that is as it was published, these stand between its parts only: within a string they are escaped.
_BREAKS = bytes.maketrans(b"\r\n", b"  ")


class Encoding:
    """An encoding of streams: its type, how one begins, and how what a poll would be answered is written. That is never
    nothing: an answer without a message is a sign of life. `with_headers` shows those of webhooks."""

    __slots__ = ("_encode", "content_type", "headers", "opening", "with_headers")

    def __init__(
        self, content_type: str, opening: bytes, encode: Callable[[Answer, bool], bytes], *, headers: bool = False
    ) -> None:
        self.content_type = content_type
        self.opening = opening
        self.headers = headers
        self._encode = encode
        self.with_headers: Encoding = self if headers else Encoding(content_type, opening, encode, headers=True)

    def encode(self, answer: Answer) -> bytes:
        return self._encode(answer, self.headers)


def in_one_line(message: Message, headers: bool) -> tuple[bytes, bytes, bytes]:
    """The JSON object of a message, in its three pieces, without line breaks."""
    head, data, rest = with_headers(message) if headers else message.encoded or encode_message(message)
    if b"\n" in data or b"\r" in data:
        data = data.translate(_BREAKS)
    if b"\n" in rest or b"\r" in rest:
        rest = rest.translate(_BREAKS)
    return head, data, rest


def encode_gap(gap: Gap) -> bytes:
    return b'{"reason": "%b", "after": "%d"}' % (gap.reason.encode(), gap.after)
