"""Tokens that were verified, and the grants that they got."""

import time
from collections.abc import Callable, Iterable

from notifier.access.expiry import ENTRY_BYTES, Expiry
from notifier.access.jwks import KeySet, read_keys
from notifier.access.remote_keys import RemoteKeys
from notifier.access.tokens import Token, Tokens, UnknownKey
from notifier.core.errors import EndedToken
from notifier.core.grants import Grant
from notifier.core.memory import MemoryBudget
from notifier.core.sharing import shared
from notifier.settings import TokenSettings

# What a token keeps, as measured, beside its texts: its two places here, the grant, and an `until`.
TOKEN_BYTES = 310 + ENTRY_BYTES
PATTERN_BYTES = 60

# Of the budget: as it is by default, for some 70,000 tokens with a pattern each.
SHARE = 4

# Sets of patterns that many tokens have are one object; these are the last ones seen.
MAX_COMMON = 1000


class TokenCache:
    """Verifies each token once. First in, first out, within a share of the memory: leaving ends the grant, so that its
    polls come back and are verified again. So all grants by token that are alive are here.

    `on_end` is called after grants have ended.
    """

    def __init__(self, settings: TokenSettings, memory: MemoryBudget, on_end: Callable[[], None]) -> None:
        """SettingsError where the keys are a file that cannot be used."""
        self.held = 0  # bytes
        self.is_revoked: Callable[[Token], bool] = lambda _: False
        self._memory = memory
        self._on_end = on_end
        self._grants: dict[bytes, Grant] = {}
        # The names of each subject's tokens: most have one. Users log out all the time, and a look at 75,000 tokens for
        # each would take 10 ms of one turn of the loop.
        self._subjects: dict[str, bytes | set[bytes]] = {}
        self._expiry = Expiry(self._drop, self._grants.__contains__)
        self._common: dict[tuple[str, ...], tuple[str, ...]] = {(): ()}
        self._tokens = Tokens(settings)
        self._remote: RemoteKeys | None = None
        if settings.keys and "://" in settings.keys:
            self._remote = RemoteKeys(settings.keys, self._change_keys)
        elif settings.keys:
            self._tokens.keys = read_keys(settings.keys)

    async def start(self) -> None:
        if self._remote:
            await self._remote.start()

    async def stop(self) -> None:
        if self._remote:
            await self._remote.stop()
        self.end(None)
        self._expiry.close()

    async def find(self, token: bytes, digest: bytes) -> Grant:
        """The grant of `token`, whose SHA-256 is `digest`. InvalidToken; Unavailable where keys cannot be fetched."""
        name = digest[:16]
        grant = self._grants.get(name)
        if grant:
            assert grant.until is not None
            if time.time() < grant.until:
                return grant
            self._drop([name])
        try:
            said = self._tokens.verify(token, time.time())
        except UnknownKey:
            if not self._remote:
                raise
            await self._remote.refresh()
            said = self._tokens.verify(token, time.time())
        # From here on nothing is awaited, so no revocation can come in between.
        if self.is_revoked(said):
            raise EndedToken("The token has been revoked: it was issued before its subject was.")
        return self._grants.get(name) or self._add(name, said)

    def known(self, digest: bytes) -> Grant | None:
        """The grant of the token whose SHA-256 is `digest`, if it has been verified; its time may be over."""
        return self._grants.get(digest[:16])

    def end(self, subjects: Iterable[str] | None) -> bool:
        """End the grants of `subjects`; None: all. Whether there were any."""
        if subjects is None:
            return self._drop(list(self._grants))
        return self._drop([name for subject in subjects for name in self._of(subject)])

    def _of(self, subject: str) -> list[bytes]:
        """The names of the tokens of `subject`."""
        names = self._subjects.get(subject, set())
        return [names] if isinstance(names, bytes) else list(names)

    def _add(self, name: bytes, said: Token) -> Grant:
        grant = Grant(
            said.subject,
            publish=self._shared(said.publish),
            subscribe=self._shared(said.subscribe),
            until=said.expires,
        )
        self._grants[name] = grant
        names = self._subjects.setdefault(grant.subject, name)
        if isinstance(names, set):
            names.add(name)
        elif names != name:
            self._subjects[grant.subject] = {names, name}
        self._expiry.add(name, said.expires)
        self._count(_size(grant))
        excess = []
        held = self.held
        for oldest, other in self._grants.items():
            if held <= self._memory.limit // SHARE or other is grant:
                break
            excess.append(oldest)
            held -= _size(other)
        self._drop(excess)
        return grant

    def _drop(self, names: Iterable[bytes]) -> bool:
        ended = False
        for name in names:
            if grant := self._grants.pop(name, None):
                self._forget(grant.subject, name)
                self._expiry.removed()
                self._count(-_size(grant))
                grant.end()
                ended = True
        if ended:
            self._on_end()
        return ended

    def _forget(self, subject: str, name: bytes) -> None:
        names = self._subjects[subject]
        if isinstance(names, set) and len(names) > 1:
            names.remove(name)
        else:
            del self._subjects[subject]

    def _count(self, size: int) -> None:
        self.held += size
        self._memory.add(size)

    def _shared(self, patterns: tuple[str, ...]) -> tuple[str, ...]:
        patterns = tuple(map(shared, patterns))
        found = self._common.setdefault(patterns, patterns)
        if len(self._common) > MAX_COMMON:
            del self._common[next(iter(self._common))]
        return found

    def _change_keys(self, keys: KeySet) -> None:
        before, self._tokens.keys = self._tokens.keys, keys
        if before and not before.texts <= keys.texts:
            self.end(None)  # a key is gone, perhaps because others have it: all tokens are verified anew


def _size(grant: Grant) -> int:
    patterns = grant.publish + grant.subscribe
    return TOKEN_BYTES + len(grant.subject) + sum(PATTERN_BYTES + len(pattern) for pattern in patterns)
