"""Failed authentications: counted, logged within bounds, and slowed down."""

import asyncio
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable

from notifier.core.errors import BadSignature, EndedToken, TooManyRequests, Unauthorized
from notifier.core.rates import Meter, Rate

log = logging.getLogger(__name__)

# For each address at most one line in this time, and for all together at most so many.
LINE_S = 60.0
MAX_LINES = 20


class Failures:
    """What was answered 401. One for each process. `rate` is how often one address may fail; None: no limit.

    A credential is looked at before its address, so the failures of one client never lock out another behind the same
    address.
    """

    def __init__(self, rate: Rate | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.reasons: Counter[str] = Counter()  # since the start
        self._meter = Meter(rate) if rate else None
        self._clock = clock
        self._lines: OrderedDict[str, float] = OrderedDict()  # when each address got its last line, oldest first
        self._left_out: Counter[str] = Counter()  # reasons that no line has told
        self._telling: asyncio.TimerHandle | None = None

    def count(self, address: str, error: Unauthorized) -> TooManyRequests | None:
        """Count one failure from `address`. Returned is what it is told instead of `error`, if it fails too often."""
        now = self._clock()
        self.reasons[error.reason] += 1
        self._log(address, error.reason, now)
        if self._meter is None or isinstance(error, BadSignature | EndedToken):
            # Senders give up on a webhook that is refused with any other status. And a credential that was good is not
            # a guess: all users of an office, or of a proxy that is not trusted, may have tokens that expire together.
            return None
        wait = self._meter.hit(address, now)
        if not wait:
            return None
        return TooManyRequests("Too many requests from your address had no credential, or a wrong one.", wait)

    def tell(self) -> None:
        """Log how many failures no line has told."""
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        if self._left_out:
            reasons = ", ".join(f"{reason} ({number})" for reason, number in self._left_out.most_common())
            log.warning("refused %d more that have no line: %s", self._left_out.total(), reasons)
            self._left_out.clear()

    def _log(self, address: str, reason: str, now: float) -> None:
        while self._lines and next(iter(self._lines.values())) <= now - LINE_S:
            self._lines.popitem(last=False)
        if address not in self._lines and len(self._lines) < MAX_LINES:
            self._lines[address] = now
            log.warning("refused %s: %s", address, reason)
            return
        self._left_out[reason] += 1
        if self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(LINE_S, self.tell)
