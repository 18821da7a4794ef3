"""Callers: the grant of each credential, and of callers without one."""

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from typing import TYPE_CHECKING

from notifier.access.expiry import Expiry
from notifier.access.revocations import Revocations
from notifier.core.errors import EndedToken, InvalidToken
from notifier.core.grants import Grant
from notifier.core.memory import MemoryBudget
from notifier.postgres.access import Changes, Key
from notifier.settings import Settings, TokenSettings

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
        # Of settings and of this process: they do not change.
        self._fixed = {_digest(key.encode()): Grant("admin", admin=True) for key in settings.admin_keys}
        self._keys: dict[bytes, tuple[Key, Grant]] = {}
        self._expiry = Expiry(self._expire, lambda name: name in self._keys)
        self.lifetime = (settings.tokens or TokenSettings()).longest
        self.revocations = Revocations(self.lifetime.total_seconds(), time.time)
        self.tokens = _tokens(settings, memory, on_end)
        if self.tokens is not None:
            self.tokens.is_revoked = lambda token: self.revocations.refused(token.subject, token.issued)
        if settings.anyone:
            self.nobody = Grant("anyone", admin=True)  # who shows no credential
        else:
            # No token has this subject.
            self.nobody = Grant("", publish=settings.public_publish, subscribe=settings.public_subscribe)

    def is_stranger(self, grant: Grant) -> bool:
        """Whether it is that of callers without a credential, who do not know one another; in open mode, of nobody."""
        return grant is self.nobody and not grant.admin

    async def find(self, credential: bytes) -> Grant:
        """The grant of `credential`, which is alive. InvalidToken, with the reason, where there is none; Unavailable
        where that cannot be told now."""
        digest = _digest(credential)
        if grant := self._fixed.get(digest):
            return grant
        if held := self._keys.get(digest):
            key, grant = held
            if grant.alive and (key.until is None or key.until > time.time()):
                grant.used = True
                return grant
            raise EndedToken("The key has expired.")
        if credential.count(b".") == 2:
            if self.tokens is not None:
                return await self.tokens.find(credential, digest)
            if credential.startswith(b"eyJ"):  # the beginning of a JSON object, in base64
                raise InvalidToken(
                    "This server takes no tokens: it has no NOTIFIER_JWT_SECRET and no NOTIFIER_JWT_KEYS."
                )
        raise InvalidToken("There is no such key, or it has expired or been revoked.")

    def known(self, credential: bytes) -> Grant | None:
        """The grant of `credential`, if it can be told without verifying anything; `find` says why not."""
        digest = _digest(credential)
        held = self._keys.get(digest)
        grant = held[1] if held else self._fixed.get(digest)
        if grant is None and self.tokens is not None:
            grant = self.tokens.known(digest)
        if grant is None or not grant.alive or (grant.until is not None and grant.until <= time.time()):
            return None
        grant.used = True
        return grant

    async def start(self) -> None:
        """Get what must be asked for; not getting it is not fatal."""
        if self.tokens is not None:
            await self.tokens.start()

    async def stop(self) -> None:
        self._expiry.close()
        if self.tokens is not None:
            await self.tokens.stop()

    def key_ids(self) -> set[str]:
        """The ids of the keys that there are, expired ones too."""
        return {key.id for key, _ in self._keys.values()}

    def take_used(self) -> set[str]:
        """The ids of the keys that were used since the last call. Re-polls count, which do not ask for their grant."""
        used = [(key, grant) for key, grant in self._keys.values() if grant.used]
        for _, grant in used:
            grant.used = False
        return {key.id for key, _ in used}

    def change(self, changes: Changes) -> None:
        """Apply `changes` of the database: end the grants that they concern. What they leave as it is goes on."""
        if changes.revoked_before is not None:
            self.revocations.clear(changes.revoked_before)
        for subject, at in changes.revoked:
            self.revocations.add(subject, at)
        ended = told = False
        if changes.keys is not None or changes.changed or changes.anew:  # else users have logged out, as they always do
            ended = self._change_keys(changes.keys, None if changes.anew else changes.changed)
        if self.tokens is not None:
            subjects = changes.changed.union(subject for subject, _ in changes.revoked)
            told = self.tokens.end(None if changes.anew else subjects)
        if ended and not told:
            self._on_end()

    def _change_keys(self, keys: Sequence[Key] | None, subjects: frozenset[str] | None) -> bool:
        """Give the grants of `keys` (None: as before), and of no others; those of `subjects` (None: all) are given
        anew. Those that have expired stay, ended. Whether any grant has ended now."""
        now = time.time()
        before, self._keys = self._keys, {}
        for key in [key for key, _ in before.values()] if keys is None else keys:
            held = before.get(key.hash)
            expired = key.until is not None and key.until <= now
            if (
                held
                and held[0] == key
                and (not held[1].alive or not (expired or subjects is None or held[1].subject in subjects))
            ):
                self._keys[key.hash] = before.pop(key.hash)
            else:
                self._keys[key.hash] = key, _grant(key, alive=not expired)
                self._keys[key.hash][1].used = held is not None and held[1].used
        ended = [grant for _, grant in before.values() if grant.alive]
        for grant in ended:
            grant.end()
        alive = ((key.until, name) for name, (key, grant) in self._keys.items() if grant.alive)
        self._expiry.replace((until, name) for until, name in alive if until is not None)
        return bool(ended)

    def _expire(self, _: list[bytes]) -> None:
        if self._change_keys(None, frozenset()):
            self._on_end()

    @contextmanager
    def temporary_key(self) -> Iterator[str]:
        """A key of this process alone, which may do everything until the end of the `with` block."""
        key = secrets.token_urlsafe(32)
        digest = _digest(key.encode())
        self._fixed[digest] = grant = Grant("notifier", admin=True)
        try:
            yield key
        finally:
            grant.end()
            self._fixed.pop(digest, None)


def _grant(key: Key, *, alive: bool) -> Grant:
    grant = Grant(f"key:{key.name}", publish=key.publish, subscribe=key.subscribe, admin=key.admin, until=key.until)
    grant.alive = alive
    return grant


def _tokens(settings: Settings, memory: MemoryBudget, on_end: Callable[[], None]) -> "TokenCache | None":
    if not settings.tokens:
        return None
    # Only where there are tokens: with public keys this takes 10 MB.
    from notifier.access.token_cache import TokenCache

    return TokenCache(settings.tokens, memory, on_end)


def _digest(credential: bytes) -> bytes:
    return sha256(credential).digest()
