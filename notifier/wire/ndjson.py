"""JSON in lines: a message in each, a gap as `{"gap": …}`, and an empty one as a sign of life."""

from notifier.core import messages
from notifier.core.polls import Answer
from notifier.wire.streams import Encoding, encode_gap, in_one_line


def encode_lines(answer: Answer, headers: bool) -> bytes:
    pieces = []
    if answer.gap:
        pieces.append(b'{"gap": %b}\n' % encode_gap(answer.gap))
    for message in answer.messages:
        pieces += (*in_one_line(message, headers), b"\n")
    return b"".join(pieces) or b"\n"


NDJSON = Encoding(messages.NDJSON, b"", encode_lines)
