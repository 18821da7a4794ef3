"""What publishers hand in, checked once, as messages to be stored."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn, TypeAlias

from notifier.core.errors import BadRequest, InvalidJSON, InvalidMessage
from notifier.core.messages import BYTES, FORM, NDJSON, TEXT, NewMessage, is_json_type, media_type
from notifier.core.topics import check_topic

MAX_BATCH = 1000
MAX_TITLE = 1000
MAX_CLICK = 2000
MAX_TAGS = 32
MAX_TAG = 100

_CONTENT_TYPE = re.compile(r"[!-~]+/[ -~]+")
_WHITESPACE = re.compile(r"[ \t\n\r]*")

# Fields that have a meaning some day. Refused until then, so that nobody relies on half of it.
LATER = ("idempotency-key", "ttl", "delay", "key", "type")


def from_body(
    topic: str,
    body: bytes,
    content_type: str | None,
    fields: str | None = None,
    headers: str | None = None,
    *,
    lenient: bool = False,
) -> NewMessage:
    """A message from the body of a request.

    JSON types must hold strict UTF-8 JSON: InvalidJSON otherwise. A form content type, which is what `curl -d` sends,
    or none is JSON if it parses, else text. All else is kept as it is. With `lenient`, for webhooks, forms are kept as
    they are, what claims to be JSON and is not is kept as text or bytes, and a malformed type counts as none.
    """
    if content_type is not None and (not _CONTENT_TYPE.fullmatch(content_type) or len(content_type) > 255):
        if not lenient:
            raise BadRequest("The Content-Type is malformed.")
        content_type = None
    if content_type is None or (media_type(content_type) == FORM and not lenient):
        return NewMessage(topic, body, None if _is_json(body) else _plain(body), fields, headers)
    if is_json_type(content_type):
        if lenient and not _is_json(body):
            return NewMessage(topic, body, _plain(body), fields, headers)
        check_json(body)
        if media_type(content_type) == "application/json":
            content_type = None
    return NewMessage(topic, body, content_type, fields, headers)


def _plain(body: bytes) -> str:
    try:
        body.decode()
    except UnicodeDecodeError:
        return BYTES
    return TEXT


# --- strict JSON


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


# Numbers are not converted (`len` takes any of them): a valid one may be longer than int() accepts.
_DECODER = json.JSONDecoder(parse_int=len, parse_float=len, parse_constant=_no_constant)


def _text(body: bytes) -> str:
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise InvalidJSON(f"JSON must be UTF-8; byte {error.start} is not.") from None
    if text.startswith("\ufeff"):
        raise InvalidJSON("JSON must not begin with a byte order mark.")
    return text


def _decode(decoder: json.JSONDecoder, text: str, start: int) -> tuple[Any, int]:
    """The JSON value at `start` and where it ends."""
    try:
        return decoder.raw_decode(text, start)
    except json.JSONDecodeError as error:
        raise InvalidJSON(f"Not valid JSON: {error.msg} at character {error.pos}.") from None
    except ValueError as error:
        raise InvalidJSON(f"Not valid JSON: {error}.") from None
    except RecursionError:
        raise InvalidJSON("This JSON is nested too deeply.") from None


def _skip(text: str, at: int) -> int:
    found = _WHITESPACE.match(text, at)
    return found.end() if found else at


def _end(text: str, at: int) -> None:
    at = _skip(text, at)
    if at != len(text):
        raise InvalidJSON(f"Not valid JSON: more text after the value, at character {at}.")


def check_json(body: bytes) -> None:
    """InvalidJSON unless `body` is one strict UTF-8 JSON value: no byte order mark, NaN or Infinity."""
    text = _text(body)
    _, end = _decode(_DECODER, text, _skip(text, 0))
    _end(text, end)


def _is_json(body: bytes) -> bool:
    try:
        check_json(body)
    except InvalidJSON:
        return False
    return True


# --- display fields


def fields_from_text(given: Mapping[str, str]) -> str | None:
    """The display fields from header or query values: `priority` as a digit, `tags` separated by commas."""
    values: dict[str, Any] = {name: given[name].strip() for name in ("title", "click") if name in given}
    if priority := given.get("priority", "").strip():
        if priority not in {"1", "2", "3", "4", "5"}:
            raise InvalidMessage("priority is 1 (least) to 5 (most).")
        values["priority"] = int(priority)
    values["tags"] = [tag.strip() for tag in given.get("tags", "").split(",") if tag.strip()]
    return display_fields(values)


def display_fields(values: Mapping[str, Any]) -> str | None:
    """`title`, `click`, `priority` and `tags` of `values` as a JSON object, or None where none has a value.

    Null and empty values are left out. InvalidMessage names what is out of bounds.
    """
    fields: dict[str, Any] = {}
    for name, most in (("title", MAX_TITLE), ("click", MAX_CLICK)):
        value = values.get(name)
        if value is None or value == "":
            continue
        fields[name] = _checked_text(name, value, most)
    priority = values.get("priority")
    if priority is not None:
        if type(priority) is not int or not 1 <= priority <= 5:
            raise InvalidMessage("priority is 1 (least) to 5 (most).")
        fields["priority"] = priority
    tags = values.get("tags")
    if tags is not None and (not isinstance(tags, list) or len(tags) > MAX_TAGS):
        raise InvalidMessage(f"tags is a list of at most {MAX_TAGS} texts.")
    if tags:
        fields["tags"] = [_checked_text("a tag", tag, MAX_TAG) for tag in tags]
    return json.dumps(fields, ensure_ascii=False) if fields else None


def _checked_text(name: str, value: object, most: int) -> str:
    if not isinstance(value, str):
        raise InvalidMessage(f"{name} is a text.")
    if not 1 <= len(value) <= most:
        raise InvalidMessage(f"{name} has 1 to {most} characters; this one has {len(value)}.")
    if "\x00" in value:
        raise InvalidMessage(f"{name} cannot hold a NUL character.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidMessage(f"{name} is not valid Unicode.") from None
    return value


# --- batches


# Of an integer, more digits than int() may take (4,300) are of no use here: none is meant to have twenty.
_VALUES = json.JSONDecoder(parse_int=lambda digits: int(digits[:20]), parse_constant=_no_constant)

# The members of a message in a batch: name, value, and the value as it is written.
_Members: TypeAlias = list[tuple[str, Any, str]]

_MEMBERS = frozenset({"topic", "data", "title", "click", "priority", "tags"})


def parse_batch(body: bytes, content_type: str | None) -> list[NewMessage]:
    """The messages of `POST /v1/messages`: a JSON array, or NDJSON, of objects; each `data` is kept verbatim.

    InvalidJSON for what is no JSON, InvalidMessage (naming the message by its place, from 0) for anything else.
    """
    text = _text(body)
    objects = _lines(text) if content_type and media_type(content_type) == NDJSON else _elements(text)
    messages: list[NewMessage] = []
    for members in objects:
        if len(messages) == MAX_BATCH:
            raise InvalidMessage(f"A batch has at most {MAX_BATCH} messages.")
        try:
            messages.append(_batch_message(members))
        except (InvalidMessage, BadRequest) as error:
            raise InvalidMessage(f"{_place(len(messages))}: {error}") from None
    if not messages:
        raise InvalidMessage("A batch has at least one message.")
    return messages


def _place(number: int) -> str:
    return f"Message {number} of the batch (counted from 0)"


def _batch_message(members: _Members) -> NewMessage:
    values: dict[str, Any] = {}
    data: str | None = None
    for name, value, verbatim in members:
        if name in LATER:
            raise InvalidMessage(f"{name!r} is not supported yet.")
        if name not in _MEMBERS:
            raise InvalidMessage(f"{name[:40]!r} is not a member of a message ({', '.join(sorted(_MEMBERS))}).")
        if name in values:
            raise InvalidMessage(f"{name!r} is given twice.")
        values[name] = value
        if name == "data":
            data = verbatim
    if "topic" not in values or data is None:
        raise InvalidMessage("topic and data must be given.")
    if not isinstance(values["topic"], str):
        raise InvalidMessage("topic is a text.")
    return NewMessage(check_topic(values["topic"]), data.encode(), None, display_fields(values))


def _elements(text: str) -> Iterator[_Members]:
    at = _skip(text, 0)
    if not text.startswith("[", at):
        raise InvalidJSON("A batch is a JSON array of messages (or NDJSON, as application/x-ndjson).")
    at = _skip(text, at + 1)
    while not text.startswith("]", at):
        members, at = _object(text, at)
        yield members
        at = _skip(text, at)
        if text.startswith(",", at):
            at = _skip(text, at + 1)
            if not text.startswith("]", at):
                continue
        elif text.startswith("]", at):
            break
        raise InvalidJSON(f"Not valid JSON: expecting ',' or ']' at character {at}.")
    _end(text, at + 1)


def _lines(text: str) -> Iterator[_Members]:
    lines = (line for line in text.split("\n") if _skip(line, 0) < len(line))
    for number, line in enumerate(lines):
        try:
            members, end = _object(line, _skip(line, 0))
            _end(line, end)
        except InvalidJSON as error:
            raise InvalidJSON(f"{_place(number)}: {error}") from None
        yield members


def _object(text: str, at: int) -> tuple[_Members, int]:
    """The members of the object at `at`, and where the object ends."""
    if not text.startswith("{", at):
        raise InvalidJSON(f"Each message is a JSON object; found something else at character {at}.")
    members: _Members = []
    at = _skip(text, at + 1)
    while not text.startswith("}", at):
        if not text.startswith('"', at):
            raise InvalidJSON(f"Not valid JSON: expecting a name in double quotes at character {at}.")
        name, at = _decode(_VALUES, text, at)
        at = _skip(text, at)
        if not text.startswith(":", at):
            raise InvalidJSON(f"Not valid JSON: expecting ':' at character {at}.")
        start = _skip(text, at + 1)
        value, at = _decode(_DECODER if name == "data" else _VALUES, text, start)
        members.append((name, value, text[start:at]))
        at = _skip(text, at)
        if text.startswith(",", at):
            at = _skip(text, at + 1)
            if not text.startswith("}", at):
                continue
        elif text.startswith("}", at):
            break
        raise InvalidJSON(f"Not valid JSON: expecting ',' or '}}' at character {at}.")
    return members, at + 1


def webhook_headers(headers: Sequence[tuple[str, str]]) -> str:
    return json.dumps(headers, ensure_ascii=False)
