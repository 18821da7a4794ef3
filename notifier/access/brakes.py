"""Brakes: how much the holder of one grant may do."""

import time
from collections.abc import Callable, Hashable

from notifier.access.callers import Callers
from notifier.core.errors import TooManyRequests
from notifier.core.grants import Grant
from notifier.core.rates import Meter
from notifier.settings import Settings


class Brakes:
    """The rates of this process: each process counts for itself. Counted for each subject, and for each address where
    there is no credential. Admins are not slowed down."""

    def __init__(self, settings: Settings, callers: Callers, clock: Callable[[], float] = time.monotonic) -> None:
        self._callers = callers
        self._clock = clock
        self._publishes = Meter(settings.publish_rate) if settings.publish_rate else None
        self._polls = Meter(settings.poll_rate) if settings.poll_rate else None

    @property
    def on_polls(self) -> bool:
        """Whether there is a rate for polls. It stays the same."""
        return self._polls is not None

    def before_publish(self, grant: Grant, address: str) -> None:
        """TooManyRequests where not even one message may be published now: nothing need be read then."""
        self._check(self._publishes, grant, address, 0)

    def publish(self, grant: Grant, address: str, messages: int = 1) -> None:
        """Count `messages`, or raise TooManyRequests."""
        self._check(self._publishes, grant, address, messages)

    def poll(self, grant: Grant, address: str) -> None:
        """Count one poll, or raise TooManyRequests."""
        self._check(self._polls, grant, address, 1)

    def passes(self, grant: Grant, address: str) -> bool:
        """The same for a re-poll: whether it was counted."""
        key = self._key(grant, address)
        return self._polls is None or key is None or not self._polls.hit(key, self._clock())

    def _check(self, meter: Meter | None, grant: Grant, address: str, hits: int) -> None:
        key = self._key(grant, address)
        if meter is None or key is None:
            return
        now = self._clock()
        if wait := meter.hit(key, now, hits) if hits else meter.wait(key, now):
            whose = "your address" if grant is self._callers.nobody else "your credential"
            raise TooManyRequests(f"Too many requests with {whose}: slow down.", wait)

    def _key(self, grant: Grant, address: str) -> Hashable:
        """What is counted together. No subject is an address in brackets."""
        if grant is self._callers.nobody:
            return (address,)
        return None if grant.admin else grant.subject
