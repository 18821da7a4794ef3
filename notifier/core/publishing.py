"""Publishing: the input of publishers, checked once, as messages to store."""

import json
from collections.abc import Callable, Mapping
from io import BytesIO
from itertools import islice
from typing import Any, NoReturn

import msgspec

from notifier.core.errors import BadRequest, InvalidJSON, InvalidMessage, NotifierError
from notifier.core.messages import FORM, NDJSON, NewMessage, is_content_type, is_json_type, media_type, plain_type
from notifier.core.partial_json import UnknownMember, elements, members
from notifier.core.strict_json import (
    MAX_DEPTH,
    check_depth,
    check_json,
    check_numbers,
    check_utf8,
    is_json,
    refuse,
)
from notifier.core.topics import check_topic

MAX_BATCH = 1000
MAX_TITLE = 1000
MAX_CLICK = 2000
MAX_TAGS = 32
MAX_TAG = 100

DISPLAY = ("title", "click", "priority", "tags")

# ntfy's words for a priority.
_PRIORITIES = {"min": 1, "low": 2, "default": 3, "high": 4, "max": 5, "urgent": 5}
_PRIORITY = "priority is 1 (least) to 5 (most), or min, low, default, high, max."

# Names that will get a meaning. Refused until then, so that no client relies on half of it.
LATER = ("ttl", "key", "type")
# What a batch has not, which is stored as a whole.
_ALONE = ("delay", "at", "in")


def from_body(topic: str, body: bytes, content_type: str | None, fields: str | None = None) -> NewMessage:
    """A message from the body of a request.

    JSON types must contain strict JSON, else InvalidJSON. A form content type, which is what `curl -d` sends,
    or none is JSON if it is valid, else text. All else is kept as it is.
    """
    if content_type is not None and not is_content_type(content_type):
        raise BadRequest("The Content-Type is malformed. It looks like this: text/plain; charset=utf-8.")
    if content_type is None or media_type(content_type) == FORM:
        return NewMessage(topic, body, None if is_json(body) else plain_type(body), fields)
    if is_json_type(content_type):
        check_json(body)
        if media_type(content_type) == "application/json":
            content_type = None
    return NewMessage(topic, body, content_type, fields)


# --- display fields


def values_from_text(given: Mapping[str, str]) -> dict[str, Any]:
    """The display fields from header or query values: `priority` as a digit or a word, `tags` separated by commas."""
    values: dict[str, Any] = {name: given[name].strip() for name in ("title", "click") if name in given}
    if priority := given.get("priority", "").strip():
        values["priority"] = int(priority) if priority in {"1", "2", "3", "4", "5"} else priority
    if tags := [tag.strip() for tag in given.get("tags", "").split(",") if tag.strip()]:
        values["tags"] = tags
    return values


def display_fields(values: Mapping[str, Any]) -> str | None:
    """`title`, `click`, `priority` and `tags` of `values` as a JSON object, or None where none has a value.

    Null and empty values are left out. `priority` is a number or one of ntfy's words. InvalidMessage names what is out
    of bounds.
    """
    fields: dict[str, Any] = {}
    for name, most in (("title", MAX_TITLE), ("click", MAX_CLICK)):
        value = values.get(name)
        if value is None or value == "":
            continue
        fields[name] = _checked_text(name, value, most)
    priority = values.get("priority")
    if isinstance(priority, str):
        priority = _PRIORITIES.get(priority.lower(), 0)
    if priority is not None:
        if type(priority) is not int or not 1 <= priority <= 5:
            raise InvalidMessage(_PRIORITY)
        fields["priority"] = priority
    tags = values.get("tags")
    if tags is not None and (not isinstance(tags, list) or len(tags) > MAX_TAGS):
        raise InvalidMessage(f"tags is a list of at most {MAX_TAGS} strings.")
    if tags:
        fields["tags"] = [_checked_text("a tag", tag, MAX_TAG) for tag in tags]
    return json.dumps(fields, ensure_ascii=False) if fields else None


def _checked_text(name: str, value: object, most: int) -> str:
    if not isinstance(value, str):
        raise InvalidMessage(f"{name} is a string.")
    if not 1 <= len(value) <= most:
        raise InvalidMessage(f"{name} has 1 to {most} characters; this one has {len(value)}.")
    if "\x00" in value:
        raise InvalidMessage(f"{name} cannot contain a NUL character.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidMessage(f"{name} is not valid Unicode.") from None
    return value


# --- batches

_NAMES = ("topic", "data", *DISPLAY)

# One of them as it is written in JSON, with the longest escapes: 32 tags of 100 characters.
_MAX_FIELD = 64 * 1024


def parse_batch(body: bytes, content_type: str | None) -> list[NewMessage]:
    """The messages of `POST /v1/messages`: a JSON array, or NDJSON, of objects; each `data` is kept verbatim.

    InvalidJSON for what is not JSON, InvalidMessage (naming the message by its place, from 0) for anything else.
    """
    check_utf8(body)
    ndjson = content_type is not None and media_type(content_type) == NDJSON
    found = _lines(body) if ndjson else _elements(body)
    if len(found) > MAX_BATCH:
        raise InvalidMessage(f"A batch has at most {MAX_BATCH} messages; this one has more.")
    if not found:
        raise InvalidMessage("A batch has at least one message.")
    messages: list[NewMessage] = []
    for element in found:
        try:
            messages.append(_message(element))
        except NotifierError as error:
            kind = InvalidJSON if isinstance(error, InvalidJSON) else InvalidMessage
            raise kind(f"Message {len(messages)} of the batch (counted from 0): {error}") from None
    return messages


def _elements(body: bytes) -> list[bytes]:
    """The elements of a batch; where they are too many, the first of them and one more."""
    check_depth(body, MAX_DEPTH + 2)
    try:
        return elements(body, MAX_BATCH + 1)
    except msgspec.ValidationError:
        raise InvalidJSON("A batch is a JSON array of messages (or NDJSON, as application/x-ndjson).") from None
    except (msgspec.DecodeError, RecursionError) as error:
        refuse(body, error)


def _lines(body: bytes) -> list[bytes]:
    """As `_elements`."""
    lines = (line.removesuffix(b"\n") for line in BytesIO(body))
    return list(islice((line for line in lines if line.strip(b" \t\r")), MAX_BATCH + 1))


def _message(element: bytes) -> NewMessage:
    given = read_members(element, _NAMES, _refuse_name)
    if "topic" not in given or "data" not in given:
        raise InvalidMessage("topic and data must be given.")
    data = given.pop("data")
    values = read_values(given)
    if not isinstance(values["topic"], str):
        raise InvalidMessage("topic is a string.")
    return NewMessage(check_topic(values["topic"]), data, None, display_fields(values))


def _refuse_name(name: str) -> NoReturn:
    if name in _ALONE:
        raise InvalidMessage(f"{name!r} is not for a batch, which is published now: /v1/topics/TOPIC takes it.")
    if name == "idempotency-key":
        raise InvalidMessage("Idempotency-Key is a header, of the batch as a whole.")
    if name in LATER:
        raise InvalidMessage(f"{name!r} is not supported yet.")
    raise InvalidMessage(f"{name[:40]!r} is not a member of a message ({', '.join(sorted(_NAMES))}).")


def read_members(element: bytes, names: tuple[str, ...], refuse_name: Callable[[str], NoReturn]) -> dict[str, bytes]:
    """The members of the JSON object `element`, each as it came. InvalidJSON; InvalidMessage for a member that is given
    twice, and what `refuse_name` raises for a name that is not among `names`, which have no colon."""
    check_depth(element, MAX_DEPTH + 1)
    try:
        found = members(element, names, only=True)
    except UnknownMember as error:
        refuse_name(str(error))
    except msgspec.ValidationError:
        raise InvalidJSON("Each message is a JSON object.") from None
    except (msgspec.DecodeError, RecursionError) as error:
        refuse(element, error)
    check_numbers(element)
    # Of several members of one name msgspec takes the last. Each has a colon, beside those in the values.
    if element.count(b":") > len(found) + sum(value.count(b":") for value in found.values()):
        # Which one, `json` could tell: it would build all of it, at 40 times its size, and let no other thread run.
        raise InvalidMessage(f"One of its members ({', '.join(sorted(found))}) is given twice.")
    return found


def read_values(given: Mapping[str, bytes]) -> dict[str, Any]:
    """The values of display fields and of a topic. InvalidMessage for one that is longer than any that is taken."""
    for name, value in given.items():
        if len(value) > _MAX_FIELD:
            raise InvalidMessage(f"{name} is too long.")
    return {name: msgspec.json.decode(value) for name, value in given.items()}
