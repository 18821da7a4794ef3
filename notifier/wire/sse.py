"""Server-Sent Events: https://html.spec.whatwg.org/multipage/server-sent-events.html.

The id of an event is the cursor to go on from, which EventSource sends as Last-Event-ID when it connects again. An
event with an id alone moves that on, and is not shown to the page.
"""

from notifier.core.polls import Answer
from notifier.wire.streams import Encoding, encode_gap, in_one_line

# How long EventSource waits before it connects again.
RETRY_MS = 2000


def encode_events(answer: Answer, headers: bool) -> bytes:
    pieces = []
    if answer.retry_after_s is not None:
        pieces.append(b"retry: %d\n" % (1000 * answer.retry_after_s))
    if answer.gap:
        pieces.append(b"event: gap\ndata: %b\n\n" % encode_gap(answer.gap))
    for message in answer.messages:
        pieces += (b"id: %d\ndata: " % message.seq, *in_one_line(message, headers), b"\n\n")
    if not answer.messages:
        pieces.append(b"id: %d\n\n" % answer.cursor)
    return b"".join(pieces)


SSE = Encoding("text/event-stream", b"retry: %d\n\n" % RETRY_MS, encode_events)
