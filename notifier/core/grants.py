"""Grants: what a caller may do, and whether that still holds."""

from collections.abc import Sequence

from notifier.core.patterns import Patterns


class Grant:
    """What one caller may publish to and subscribe to, while it is `alive`; an admin everything.

    All requests with the same credential share one grant, and a parked poll holds it, so `end` reaches all of them.
    `until`, in Unix seconds, is when the grant is to be ended; None: no such time. `used` is set with each request, for
    those who want to know.

    Each user may have one, so a grant holds only its texts; equal tuples of patterns should be one object.
    """

    __slots__ = ("admin", "alive", "publish", "subject", "subscribe", "until", "used")

    def __init__(
        self,
        subject: str,
        *,
        publish: Sequence[str] = (),
        subscribe: Sequence[str] = (),
        admin: bool = False,
        until: float | None = None,
    ) -> None:
        self.subject = subject
        self.publish = tuple(publish)
        self.subscribe = tuple(subscribe)
        self.admin = admin
        self.until = until
        self.alive = True
        self.used = False

    def __repr__(self) -> str:
        return f"Grant({self.subject!r}{'' if self.alive else ', ended'})"

    def end(self) -> None:
        """End the grant: it allows nothing any more, and its holders must have their requests authorised anew."""
        self.alive = False

    @property
    def publishes(self) -> bool:
        """Whether it allows publishing to any topic."""
        return self.admin or bool(self.publish)

    @property
    def subscribes(self) -> bool:
        """Whether it allows subscribing to any topic."""
        return self.admin or bool(self.subscribe)

    def may_not_publish(self, topics: Sequence[str]) -> str | None:
        """The first of `topics` that it does not allow publishing to."""
        return None if self.admin else _first_outside(self.publish, topics)

    def may_not_subscribe(self, items: Sequence[str]) -> str | None:
        """The first of `items`, topics and patterns, that it does not allow subscribing to.

        A topic is allowed that one of its patterns matches, and a pattern that one of its patterns covers. Unions are
        not computed.
        """
        return None if self.admin else _first_outside(self.subscribe, items)


def _first_outside(patterns: Sequence[str], items: Sequence[str]) -> str | None:
    tree: Patterns[None] = Patterns((pattern, None) for pattern in patterns)
    return next((item for item in items if not tree.matches(item)), None)
