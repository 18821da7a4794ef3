"""Callers: the grant of each credential, and of callers without one."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import TYPE_CHECKING

from notifier.core.errors import InvalidToken
from notifier.core.grants import Grant
from notifier.core.memory import MemoryBudget
from notifier.settings import Settings

if TYPE_CHECKING:
    from notifier.access.token_cache import TokenCache


class Callers:
    """The grants that this process currently gives. All credentials are looked up by their SHA-256, so no comparison
    takes longer the more of a guess is right.

    `on_end` is called after grants have ended: what is parked with them must be answered.
    """

    def __init__(self, settings: Settings, memory: MemoryBudget, *, on_end: Callable[[], None] = lambda: None) -> None:
        """SettingsError where the keys for tokens cannot be used."""
        self._on_end = on_end
        self._keys: dict[bytes, Grant] = {}
        self.tokens = _tokens(settings, memory, on_end)
        self.nobody = Grant("nobody")  # who shows no credential
        self.change(settings)

    def change(self, settings: Settings) -> None:
        """Use the keys of `settings` from here on. Every grant given before has ended."""
        for grant in (*self._keys.values(), self.nobody):
            grant.end()
        if self.tokens is not None:
            self.tokens.clear()
        self._keys = {_digest(key.encode()): Grant("admin", admin=True) for key in settings.admin_keys}
        if settings.anyone:
            self.nobody = Grant("anyone", admin=True)
        else:
            self.nobody = Grant("public", publish=settings.public_publish, subscribe=settings.public_subscribe)
        self._on_end()

    async def find(self, credential: bytes) -> Grant:
        """The grant of `credential`, which is alive. InvalidToken, with the reason, where there is none; Unavailable
        where that cannot be told now."""
        digest = _digest(credential)
        grant = self._keys.get(digest)
        if grant:
            return grant
        if credential.count(b".") == 2:
            if self.tokens is not None:
                return await self.tokens.find(credential, digest)
            if credential.startswith(b"eyJ"):  # the beginning of a JSON object, in base64
                raise InvalidToken(
                    "This server takes no tokens: it has no NOTIFIER_JWT_SECRET and no NOTIFIER_JWT_KEYS."
                )
        raise InvalidToken("There is no such key, or it has been revoked.")

    async def start(self) -> None:
        """Get what must be asked for; not getting it is not fatal."""
        if self.tokens is not None:
            await self.tokens.start()

    async def stop(self) -> None:
        if self.tokens is not None:
            await self.tokens.stop()

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


def _tokens(settings: Settings, memory: MemoryBudget, on_end: Callable[[], None]) -> "TokenCache | None":
    if not settings.tokens:
        return None
    # Only where there are tokens: with public keys this takes 10 MB.
    from notifier.access.token_cache import TokenCache

    return TokenCache(settings.tokens, memory, on_end)


def _digest(credential: bytes) -> bytes:
    return sha256(credential).digest()
