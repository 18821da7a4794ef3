"""Refusals: counted, logged within bounds, and, where a credential was wrong, slowed down."""

import asyncio
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable

from notifier.core.errors import BadSignature, EndedToken, TooManyRequests, Unauthorized
from notifier.core.rates import Meter, Rate

log = logging.getLogger(__name__)

# For each key at most one line in this time, and for all together at most so many.
LINE_S = 60.0
MAX_LINES = 20


class Lines:
    """Warnings, of which there may be any number: a line for each key now and then, then how many had none."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lines: OrderedDict[Hashable, float] = OrderedDict()  # when each key got its last line, oldest first
        self._left_out: Counter[str] = Counter()  # reasons that no line has told
        self._telling: asyncio.TimerHandle | None = None

    def log(self, key: Hashable, what: str, reason: str) -> None:
        """Log that `what`, which one line can hold, was refused for `reason`, which is one of a few."""
        now = self._clock()
        while self._lines and next(iter(self._lines.values())) <= now - LINE_S:
            self._lines.popitem(last=False)
        if key not in self._lines and len(self._lines) < MAX_LINES:
            self._lines[key] = now
            log.warning("refused %s: %s", what, reason)
            return
        self._left_out[reason] += 1
        if self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(LINE_S, self.tell)

    def tell(self) -> None:
        """Log how many refusals no line has told."""
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        if self._left_out:
            reasons = ", ".join(f"{reason} ({number})" for reason, number in self._left_out.most_common())
            log.warning("refused %d more that have no line: %s", self._left_out.total(), reasons)
            self._left_out.clear()


class Failures:
    """What was answered 401. One for each process. `rate` is how often one address may fail; None: no limit.

    A credential is looked at before its address, so the failures of one client never lock out another behind the same
    address.
    """

    def __init__(self, rate: Rate | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.reasons: Counter[str] = Counter()  # since the start
        self._meter = Meter(rate) if rate else None
        self._clock = clock
        self._lines = Lines(clock)

    def count(self, address: str, error: Unauthorized) -> TooManyRequests | None:
        """Count one failure from `address`. Returned is what it is told instead of `error`, if it fails too often."""
        self.reasons[error.reason] += 1
        if isinstance(error, BadSignature):
            # The source tells it. And senders give up on a webhook that is refused with any other status.
            return None
        self._lines.log(address, address, error.reason)
        if self._meter is None or isinstance(error, EndedToken):
            # A credential that was good is not a guess: all users of an office, or of a proxy that is not trusted, may
            # have tokens that expire together.
            return None
        wait = self._meter.hit(address, self._clock())
        if not wait:
            return None
        return TooManyRequests("Too many requests from your address had no credential, or a wrong one.", wait)

    def tell(self) -> None:
        """Log how many failures no line has told."""
        self._lines.tell()


class Refusals:
    """Webhooks that were refused: a count and a line for each source and reason. One for each process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.reasons: Counter[tuple[str, str]] = Counter()  # by source and reason, since the start
        self._known = Lines(clock)
        self._unknown = Lines(clock)

    def count(self, source: str, address: str, reason: str, *, known: bool) -> None:
        """Count one refusal. Sources that are not `known` are counted together, and take no other's lines: their names
        are anybody's."""
        self.reasons[source if known else "", reason] += 1
        lines = self._known if known else self._unknown
        lines.log((source, reason), f"a webhook for {source} from {address}", reason)

    def tell(self) -> None:
        """Log how many refusals no line has told."""
        self._known.tell()
        self._unknown.tell()
