"""Messages: what is stored. How they come in is `publishing`, how they are written is `notifier.wire`."""

import re
from dataclasses import dataclass
from datetime import datetime

TEXT = "text/plain; charset=utf-8"
BYTES = "application/octet-stream"
FORM = "application/x-www-form-urlencoded"
NDJSON = "application/x-ndjson"

# The JSON of a message beside its data, topic, fields and content type, with what stands between two messages.
ENVELOPE = 100

# RFC 9110, section 8.3.1, without the comma and the tab: what reads this header as a list, as browsers do, would take
# the last of `text/plain;,text/html`. notifier.is_content_type() is the same.
_TCHARS = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED = r'"(?:[]^-~ !#-+.-[-]|\\[- -+.-~])*"'
_CONTENT_TYPE = re.compile(rf"{_TCHARS}/{_TCHARS}(?: *;(?: *{_TCHARS}=(?:{_TCHARS}|{_QUOTED}))?)*", re.ASCII)
MAX_CONTENT_TYPE = 255

_PLAIN = re.compile(r'text/plain(?: *;(?: *charset=(?:"utf-8"|utf-8))?)*', re.ASCII | re.IGNORECASE)


def is_content_type(text: str) -> bool:
    return len(text) <= MAX_CONTENT_TYPE and _CONTENT_TYPE.fullmatch(text) is not None


def inline_type(content_type: str | None) -> str | None:
    """The type, in words of ours, as which a browser may show a body of this type; None where it must not."""
    if content_type is None:
        return "application/json"
    return TEXT if _PLAIN.fullmatch(content_type) else None


def media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def is_json_type(content_type: str | None) -> bool:
    """Whether bodies of this type are JSON; None stands for application/json."""
    if content_type is None:
        return True
    media = media_type(content_type)
    return media == "application/json" or media.endswith("+json")


def plain_type(body: bytes) -> str:
    """The content type of a body that is not what it claims to be."""
    try:
        body.decode()
    except UnicodeDecodeError:
        return BYTES
    return TEXT


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message on its way into the log; everything in it has been checked.

    `content_type` None means application/json, and then `body` is strict UTF-8 JSON. `fields` is a JSON object with the
    display fields as the wire shows them, `headers` one of what is kept beside a webhook.
    """

    topic: str
    body: bytes
    content_type: str | None = None
    fields: str | None = None
    headers: str | None = None


class Message:
    """A message of the log, as it is stored. `time` is in UTC.

    `headers` is the JSON array of those kept with a webhook, None for any other message. `size` is the most bytes that
    its JSON takes in an answer, with them: JSON as it is, anything else at most doubled. It takes as much memory, since
    JSON is not copied, and anything else is kept in both forms. `encoded` belongs to `notifier.wire.json`, which fills
    it when the JSON is first asked for.
    """

    __slots__ = ("body", "content_type", "encoded", "fields", "headers", "seq", "size", "time", "topic")

    def __init__(
        self,
        seq: int,
        topic: str,
        time: datetime,
        body: bytes,
        content_type: str | None = None,
        fields: str | None = None,
        headers: bytes | None = None,
    ) -> None:
        self.seq = seq
        self.topic = topic
        self.time = time
        self.body = body
        self.content_type = content_type
        self.fields = fields
        self.headers = headers
        self.size = ENVELOPE + len(topic) + len(body) + (4 * len(fields) if fields else 0) + len(headers or b"")
        if content_type is not None:
            self.size += 50 + 2 * len(content_type)
            if not is_json_type(content_type):
                self.size += len(body)
        self.encoded: tuple[bytes, bytes, bytes] | None = None

    def __repr__(self) -> str:
        return f"<Message {self.seq} on {self.topic}>"
