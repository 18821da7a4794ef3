"""Times, as requests give them."""

import re
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from notifier.core.errors import BadRequest

# When a message is to be published: so long from now, or then.
Later: TypeAlias = timedelta | datetime

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII)
# Units as ntfy writes them, too: 30min, 2 days.
_DELAY = re.compile(
    r"([0-9]{1,9}) ?(?:(s|secs?|seconds?)|(m|mins?|minutes?)|(h|hours?)|(d|days?))", re.ASCII | re.IGNORECASE
)
_UNITS_S = (1, 60, 3600, 86400)
# Nobody means the first days of 1970; but 90 may be meant as seconds, and 1795657890043 are milliseconds.
_UNIX = re.compile(r"[1-9][0-9]{8,10}", re.ASCII)
# So that the time has a year of four digits.
MAX_DELAY = timedelta(days=365_000)

_LATER = (
    "delay and at (ntfy's in, too) take a span such as 90s, 10m, 2h or 30d, an RFC 3339 time such as "
    "2026-11-20T17:00:00Z, or a Unix time in seconds. Words such as 'tomorrow' are not understood."
)


def parse_time(text: str) -> datetime | None:
    """An RFC 3339 time, in UTC; None for anything else."""
    # An unescaped + of a time zone arrives as a space.
    text = text.replace(" ", "+").upper()
    if not _RFC3339.fullmatch(text):
        return None
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def parse_later(text: str) -> Later:
    """When something is to be published. BadRequest."""
    text = text.strip()
    if found := _DELAY.fullmatch(text):
        unit = next(index for index, given in enumerate(found.groups()[1:]) if given)
        delay = timedelta(seconds=int(found[1]) * _UNITS_S[unit])
        if delay > MAX_DELAY:
            raise BadRequest(f"A delay is at most {MAX_DELAY.days}d.")
        return delay
    if _UNIX.fullmatch(text):
        return datetime.fromtimestamp(int(text), UTC)
    time = parse_time(text)
    if time is None:
        raise BadRequest(_LATER)
    return time


def format_time(time: datetime) -> str:
    """`time`, which is in UTC, as RFC 3339 with microseconds."""
    return f"{time.isoformat(timespec='microseconds')[:26]}Z"
