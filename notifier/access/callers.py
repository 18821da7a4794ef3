"""Callers: the grant of each credential, and of callers without one."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256

from notifier.core.errors import InvalidToken
from notifier.core.grants import Grant
from notifier.settings import Settings


class Callers:
    """The grants that this process currently gives. All credentials are looked up by their SHA-256, so no comparison
    takes longer the more of a guess is right.

    `on_end` is called after grants have ended: what is parked with them must be answered.
    """

    def __init__(self, settings: Settings, *, on_end: Callable[[], None] = lambda: None) -> None:
        self._on_end = on_end
        self._keys: dict[bytes, Grant] = {}
        self.nobody = Grant("nobody")  # who shows no credential
        self.change(settings)

    def change(self, settings: Settings) -> None:
        """Use the keys of `settings` from here on. Every grant given before has ended."""
        for grant in (*self._keys.values(), self.nobody):
            grant.end()
        self._keys = {_digest(key.encode()): Grant("admin", admin=True) for key in settings.admin_keys}
        if settings.anyone:
            self.nobody = Grant("anyone", admin=True)
        else:
            self.nobody = Grant("public", publish=settings.public_publish, subscribe=settings.public_subscribe)
        self._on_end()

    async def find(self, credential: bytes) -> Grant:
        """The grant of `credential`, which is alive. InvalidToken, with the reason, where there is none."""
        grant = self._keys.get(_digest(credential))
        if grant is None:
            raise InvalidToken("There is no such key, or it has been revoked.")
        return grant

    @contextmanager
    def temporary_key(self) -> Iterator[str]:
        """A key of this process alone, which may do everything until the end of the `with` block."""
        key = secrets.token_urlsafe(32)
        digest = _digest(key.encode())
        self._keys[digest] = grant = Grant("notifier", admin=True)
        try:
            yield key
        finally:
            grant.end()
            self._keys.pop(digest, None)


def _digest(credential: bytes) -> bytes:
    return sha256(credential).digest()
