"""Topic templates: which topic a webhook goes to, by what it holds.

`github/{repository.full_name|organization.login}/{header:X-GitHub-Event}`: each pair of braces holds alternatives, of
which the first that has a value is taken. An alternative is the path of a JSON field (`commits.0.id`; a key with other
characters in quotes, `labels."a.b/c"`), or `header:`, `form:` or `query:` with a name.
"""

import re

import msgspec

from notifier.core.errors import InvalidSource, InvalidTopic
from notifier.core.partial_json import elements, members
from notifier.core.topics import MAX_TOPIC, check_topic
from notifier.core.webhooks.delivery import Delivery, text
from notifier.core.webhooks.kept import is_credential

_STEP = r'(?:[A-Za-z0-9_$@+-]+|"[^"{}]+")'
_PART = rf"(?:(?:header|form|query):[A-Za-z0-9_$@.-]+|{_STEP}(?:\.{_STEP})*)"
_FIELD = re.compile(rf"\{{({_PART}(?:\|{_PART})*)\}}")
_ALTERNATIVE = re.compile(rf"(?:(header|form|query):([A-Za-z0-9_$@.-]+)|({_STEP}(?:\.{_STEP})*))(?:\||$)")
_STEPS = re.compile(rf"({_STEP})(?:\.|$)")
_NOT_IN_A_TOPIC = re.compile(r"[^A-Za-z0-9_.:@=+/-]")

# Where a name has one of these, all members are kept; where an element is farther on, or counted from the end, all
# elements.
_UNUSUAL = re.compile(r"[\\\x00-\x1f]")
_MAX_ELEMENTS = 100
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_LIST = msgspec.json.Decoder(list[msgspec.Raw])


def check_template(template: str) -> None:
    """InvalidSource unless `template` gives a topic, whatever its fields contain."""
    if len(template) > MAX_TOPIC:
        raise InvalidSource(f"A topic template has at most {MAX_TOPIC} characters.")
    if {"{", "}"} & set(_FIELD.sub("", template)):
        raise InvalidSource(
            "In a topic template, braces hold a JSON field such as {repository.full_name}, a header such as "
            "{header:X-GitHub-Event}, {form:NAME}, {query:NAME}, or several of these, separated by |."
        )
    for field in _FIELD.findall(template):
        for kind, name, _ in _ALTERNATIVE.findall(field):
            if kind and is_credential(name):
                raise InvalidSource(f"{kind}:{name} may hold a credential: it cannot be part of a topic.")
    try:
        check_topic(_FIELD.sub("_", template))
    except InvalidTopic as error:
        raise InvalidSource(f"This template yields no topic, whatever its fields contain. {error}") from None


def topic_for(template: str, delivery: Delivery) -> str:
    """`template`, which has been checked, filled in: always a topic. What a topic cannot hold and what is missing
    become `_`; the slashes of a value stay."""

    def value(field: re.Match[str]) -> str:
        for kind, name, path in _ALTERNATIVE.findall(field[1]):
            if found := _find(delivery, kind, name, path):
                return found[:MAX_TOPIC]
        return "_"

    topic = _NOT_IN_A_TOPIC.sub("_", _FIELD.sub(value, template)[:MAX_TOPIC])
    # Again after the cut, which may leave a dot alone in the last segment.
    return _mend_segments(_mend_segments(topic)[:MAX_TOPIC].rstrip("/"))


def _find(delivery: Delivery, kind: str, name: str, path: str) -> str:
    if kind == "header":
        return delivery.header(name)
    if kind:
        return text((delivery.form if kind == "form" else delivery.parameters).get(name.encode(), b""))
    return look_up(delivery.document, [step.strip('"') for step in _STEPS.findall(path)])


def look_up(document: bytes, path: list[str]) -> str:
    """The value at `path` of a JSON document, as text; a number as it is written. Empty where there is none."""
    found = document
    try:
        for step in path:
            try:
                found = _member(found, step)
            except msgspec.ValidationError:  # no object
                found = _element(found, int(step))
    except (KeyError, IndexError, ValueError):
        return ""
    value = bytes(found).strip()
    if value.startswith(b'"'):
        return str(msgspec.json.decode(value))
    return "" if value.startswith((b"{", b"[", b"null")) else value.decode()


def _member(json: bytes, name: str) -> bytes:
    return bytes(_OBJECT.decode(json)[name]) if _UNUSUAL.search(name) else members(json, (name,))[name]


def _element(array: bytes, at: int) -> bytes:
    if 0 <= at < _MAX_ELEMENTS:
        return elements(array, _MAX_ELEMENTS)[at]
    return bytes(_LIST.decode(array)[at])


def _mend_segments(topic: str) -> str:
    return "/".join("_" if segment in {"", ".", ".."} else segment for segment in topic.split("/"))
