"""What a request accepts (RFC 9110, section 12.5.1): JSON, which is a poll's answer, or one of the streams."""

import re
from collections.abc import Sequence

from notifier.core.errors import NotAcceptable
from notifier.wire.ndjson import NDJSON
from notifier.wire.sse import SSE
from notifier.wire.streams import Encoding

_JSON = "application/json"
# Stars are for JSON: a stream is for those that ask for it by its name.
_OFFERS: dict[str, Encoding | None] = {_JSON: None, "application/*": None, "*/*": None}
_OFFERS |= {encoding.content_type: encoding for encoding in (SSE, NDJSON)}
_QUALITY = re.compile(r"\s*q\s*=\s*(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)\s*", re.ASCII | re.IGNORECASE)


def accepted(values: Sequence[str]) -> Encoding | None:
    """The stream that the values of Accept ask for; None for a poll. NotAcceptable where they accept neither.

    Of several the one with the highest quality counts, then a name before a star, then JSON.
    """
    best: tuple[float, bool, bool] | None = None
    chosen: Encoding | None = None
    for item in ",".join(values).split(","):
        name, *parameters = item.split(";")
        name = name.strip().lower()
        if name not in _OFFERS:
            continue
        quality = next((float(found[1]) for text in parameters if (found := _QUALITY.fullmatch(text))), 1.0)
        rank = (quality, "*" not in name, name == _JSON)
        if quality and (best is None or rank > best):
            best, chosen = rank, _OFFERS[name]
    if best is None and any(value.strip() for value in values):
        raise NotAcceptable(f"What there is, is {_JSON}, {SSE.content_type} and {NDJSON.content_type}.")
    return chosen
