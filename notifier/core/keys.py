"""Keys: credentials that an operator makes for a program or a person, each with a name and with what it may do.

A key is `nk_<id>_<secret>`. The id, 12 characters of a-z and 0-9, tells keys apart and is no secret. The secret has 32
characters of A-Z, a-z and 0-9: 190 bits, so a fast hash of the whole text is enough to keep (SHA-256).
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from string import ascii_letters, ascii_lowercase, digits

from notifier.core.errors import InvalidKey, InvalidTopic
from notifier.core.topics import check_item

MAX_NAME = 100
# For publishing and for subscribing, each. As in a list of topics: what a request is compared with has a bound.
MAX_PATTERNS = 100

_ID = 12
_SECRET = 32
_PREFIX = "nk_"
_KEY = re.compile(rf"(?:{_PREFIX})?([a-z0-9]{{{_ID}}})(?:_[A-Za-z0-9]{{{_SECRET}}})?")


@dataclass(frozen=True, slots=True)
class Rights:
    """What a key may do: publish to and subscribe to what these patterns match, or, for an admin, everything."""

    publish: tuple[str, ...] = ()
    subscribe: tuple[str, ...] = ()
    admin: bool = False


def make_key(choose: Callable[[str], str]) -> tuple[str, str]:
    """The id and the whole text of a new key. `choose` picks one character of a text, unpredictably."""
    key_id = "".join(choose(ascii_lowercase + digits) for _ in range(_ID))
    secret = "".join(choose(ascii_letters + digits) for _ in range(_SECRET))
    return key_id, f"{_PREFIX}{key_id}_{secret}"


def hash_of(key: str) -> bytes:
    """What is stored of a key: 32 bytes, from which nobody can make the key."""
    return sha256(key.encode()).digest()


def id_in(text: str) -> str | None:
    """The id of the key `text`, which may be the whole key, the part before its secret, or the id alone."""
    found = _KEY.fullmatch(text)
    return found and found[1]


def check_name(name: str) -> str:
    """`name` itself if a key can have it, else InvalidKey. It is shown in tables, and its grant's subject is made of
    it."""
    if not 1 <= len(name) <= MAX_NAME or not name.isprintable() or name != name.strip():
        raise InvalidKey(
            f"The name of a key has 1 to {MAX_NAME} printable characters, and no space at its beginning or end."
        )
    if name.startswith(_PREFIX):
        # It could be a key, which would be stored and shown, or the id of another one, to be revoked in its place.
        raise InvalidKey(f"The name of a key does not begin with {_PREFIX}, as keys do.")
    return name


def check_rights(publish: Sequence[str], subscribe: Sequence[str], *, admin: bool) -> Rights:
    """The rights, each pattern once, or InvalidKey with a sentence that says what is wrong."""
    patterns = [*publish, *subscribe]
    if admin and patterns:
        raise InvalidKey("An admin key may do everything: leave its patterns out, or do not make it an admin.")
    if not admin and not patterns:
        raise InvalidKey("A key without patterns may do nothing: name what it may publish or subscribe to.")
    try:
        for pattern in patterns:
            check_item(pattern)
    except InvalidTopic as error:
        raise InvalidKey(str(error)) from None
    rights = Rights(tuple(dict.fromkeys(publish)), tuple(dict.fromkeys(subscribe)), admin)
    if max(len(rights.publish), len(rights.subscribe)) > MAX_PATTERNS:
        raise InvalidKey(f"A key has at most {MAX_PATTERNS} patterns to publish to, and as many to subscribe to.")
    return rights
