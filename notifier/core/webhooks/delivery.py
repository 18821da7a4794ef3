"""One request of a sender, raw: what is verified, and what a message is made from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

from notifier.core.messages import FORM, media_type
from notifier.core.percent import unquote
from notifier.core.strict_json import is_json

Headers: TypeAlias = Sequence[tuple[bytes, bytes]]

_BOM = b"\xef\xbb\xbf"

# Each becomes objects of a few hundred bytes. Senders have some twenty.
MAX_FIELDS = 1000


@dataclass(frozen=True)
class Delivery:
    """Headers `(name, value)` and body as they came; `query` is what stands behind the question mark.

    Nothing here raises, whatever a sender has put in.
    """

    headers: Headers
    body: bytes
    query: bytes = b""

    def values(self, name: str) -> list[bytes]:
        """The values of all headers of that name, without space around them."""
        raw = name.lower().encode()
        return [value.strip() for each, value in self.headers if each.lower() == raw]

    def header(self, name: str) -> str:
        """The first header of that name as text; empty where there is none."""
        found = self.values(name)
        return text(found[0]) if found else ""

    @cached_property
    def content_type(self) -> str:
        return self.header("content-type")

    @cached_property
    def is_json(self) -> bool:
        """Whether every reader can read the body as JSON."""
        return is_json(self.body)

    @cached_property
    def form(self) -> dict[bytes, bytes]:
        """The fields of a form, decoded; of several of one name the first. Empty where the body is no form."""
        return first_of(self.body) if media_type(self.content_type) == FORM else {}

    @cached_property
    def parameters(self) -> dict[bytes, bytes]:
        """The parameters of the query, decoded; of several of one name the first."""
        return first_of(self.query)

    @cached_property
    def document(self) -> bytes:
        """The JSON that the body is, or carries as the `payload` of a form (GitHub's other way), in UTF-8; null if
        none. A byte order mark is skipped, and what is not UTF-8 is taken for Latin-1."""
        if self.is_json:
            return self.body
        body = self.form.get(b"payload", self.body).removeprefix(_BOM)
        try:
            body.decode()
        except UnicodeDecodeError:
            body = body.decode("latin-1").encode()
        return body if body is not self.body and is_json(body) else b"null"


def pairs(form: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The names and values of `application/x-www-form-urlencoded`, decoded, in order; MAX_FIELDS at most."""
    for part in form.split(b"&", MAX_FIELDS)[:MAX_FIELDS]:
        if part:
            name, _, value = part.replace(b"+", b" ").partition(b"=")
            yield unquote(name), unquote(value)


def first_of(form: bytes) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for name, value in pairs(form):
        found.setdefault(name, value)
    return found


def text(value: bytes) -> str:
    """UTF-8, else Latin-1."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")
