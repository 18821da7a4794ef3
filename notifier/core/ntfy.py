"""What publishers of ntfy are used to (https://docs.ntfy.sh/publish/): its names for display fields, and for what is
not built here, and its JSON."""

from collections.abc import Mapping
from typing import NamedTuple, NoReturn

import msgspec

from notifier.core.errors import BadRequest, InvalidJSON, InvalidMessage
from notifier.core.messages import TEXT, NewMessage
from notifier.core.publishing import DISPLAY, LATER, display_fields, read_members, read_values, values_from_text
from notifier.core.strict_json import check_utf8
from notifier.core.times import Later, parse_later
from notifier.core.topics import check_topic

_YES = frozenset({"1", "true", "yes"})
_NO = frozenset({"0", "false", "no"})


class _Refused(NamedTuple):
    """Something of ntfy's that is not built. `asks`: the values that ask for it; None is any value."""

    sentence: str
    asks: frozenset[str] | None = None


_ATTACHMENT = _Refused("There are no attachments: send the file itself as the body, with its Content-Type.")

# Publishing at once what was meant for tomorrow, or without its file, would be worse than not at all. (firebase is not
# here: there is none to be left out.)
_REFUSED = {
    **dict.fromkeys(LATER, _Refused("{name} is not supported yet.")),
    "idempotency-key": _Refused("Idempotency-Key is a header: send it as one."),
    "attach": _ATTACHMENT,
    "filename": _ATTACHMENT,
    "email": _Refused("No e-mail is sent from here: leave {name} out."),
    "call": _Refused("No phone is called from here: leave {name} out."),
    "message": _Refused("The message is the body of the request: send it there instead of in {name}."),
    "actions": _Refused("There are no action buttons: leave {name} out. A message has one link, click."),
    "icon": _Refused("There are no icons: leave {name} out."),
    "markdown": _Refused("There is no {name}: publish Markdown with Content-Type: text/markdown.", _YES),
    "template": _Refused("There are no templates: a message is stored as it is sent. Leave {name} out."),
    "cache": _Refused("Each message is stored until its retention ends: leave {name} out.", _NO),
    "unifiedpush": _Refused("UnifiedPush is not supported: leave {name} out.", _YES),
    "sequence-id": _Refused("A message is never changed or taken back: leave {name} out."),
    "poll-id": _Refused("Messages are not relayed from another server: leave {name} out."),
}

_OTHER_NAMES = {
    "at": ("delay", "in"),
    "title": ("t",),
    "priority": ("prio", "p"),
    "tags": ("tag", "ta"),
    "attach": ("a",),
    "filename": ("file", "f"),
    "email": ("e-mail", "mail", "e"),
    "message": ("m",),
    "actions": ("action",),
    "markdown": ("md",),
    "template": ("tpl",),
    "unifiedpush": ("up",),
    "sequence-id": ("sequence_id", "sid"),
}

# What each name means, as a header, which may have X- before it, or as a parameter. In a query the shortest often mean
# something else: ?t= keeps caches away.
HEADERS = {name: name for name in (*DISPLAY, "at", *_REFUSED) if name != "idempotency-key"}
HEADERS |= {other: name for name, others in _OTHER_NAMES.items() for other in others}
PARAMETERS = {name: meaning for name, meaning in HEADERS.items() if len(name) > 2 or meaning == "at"}
PARAMETERS["idempotency-key"] = "idempotency-key"


def refusal(given: Mapping[str, str]) -> str | None:
    """Why a message with these headers, parameters or members cannot be published as it was meant; else None."""
    for name, value in given.items():
        refused = _REFUSED.get(name)
        value = value.strip().lower()
        if refused and value and (refused.asks is None or value in refused.asks):
            return refused.sentence.format(name=name)
    return None


_NAMES = ("topic", "message", *DISPLAY, "delay")
_UNBUILT = (name for name, meaning in (HEADERS | PARAMETERS).items() if meaning in _REFUSED and name not in _NAMES)
_MEMBERS = (*_NAMES, *_UNBUILT, "firebase")
# Members of ntfy's that are not built say nothing with these, in lower case.
_NOTHING = frozenset({"", "null", "[]", "{}"})


def from_ntfy(body: bytes, given: Mapping[str, str]) -> tuple[NewMessage, Later | None]:
    """The message of `POST /`: ntfy's JSON object, with the display fields `given` by headers and query; and when it is
    to be published, if not now.

    Its text is kept as text, whatever it looks like. InvalidJSON; InvalidMessage says what is wrong with a member.
    """
    try:
        check_utf8(body)
        members = read_members(body, _MEMBERS, _refuse_name)
    except InvalidJSON as error:
        raise InvalidJSON(
            f"This path takes ntfy's JSON, with topic and message. Anything else goes to /v1/topics/TOPIC. {error}"
        ) from None
    others = {HEADERS.get(name, name): value for name, value in members.items() if name not in _NAMES}
    said = {name: value.decode().strip('"') for name, value in others.items()}
    if sentence := refusal({name: value for name, value in said.items() if value not in _NOTHING}):
        raise InvalidMessage(sentence)
    text = _text(members.pop("message", b"null"))
    values = read_values({name: members[name] for name in _NAMES if name in members})
    topic = values.pop("topic", None)
    if not isinstance(topic, str) or text is None:
        raise InvalidMessage("topic is a string that must be given, and message is a string.")
    if values.get("priority") == 0:
        del values["priority"]  # as programs in Go leave it out
    if delay := values.pop("delay", None):
        values["at"] = delay
    if twice := given.keys() & values.keys():
        raise InvalidMessage(f"{min(twice)} is given twice, in the body and beside it.")
    message = NewMessage(check_topic(topic), text.encode(), TEXT, display_fields(values | values_from_text(given)))
    return message, _later(values.get("at") or given.get("at"))


def _text(value: bytes) -> str | None:
    """The string that is written in JSON, empty for null; None for anything else."""
    try:
        return msgspec.json.decode(value, type=str | None) or ""
    except msgspec.ValidationError:
        return None


def _later(value: object) -> Later | None:
    if not value:
        return None
    try:
        return parse_later(str(value))  # ntfy takes a string alone; programs know Unix times as numbers
    except BadRequest as error:
        raise InvalidMessage(str(error)) from None


def _refuse_name(name: str) -> NoReturn:
    raise InvalidMessage(f"{name[:40]!r} is not a member of ntfy's messages ({', '.join(sorted(_NAMES))}).")
