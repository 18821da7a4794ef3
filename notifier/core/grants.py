"""Grants: what a caller may do, and whether that still holds."""

from collections.abc import Iterable

from notifier.core.patterns import Patterns


class Grant:
    """What one caller may publish to and subscribe to, while it is `alive`; an admin everything.

    All requests with the same credential share one grant, and a parked poll holds it, so `end` reaches all of them.
    `until`, in Unix seconds, is when the grant is to be ended; None: no such time.
    """

    __slots__ = ("_publish", "_subscribe", "admin", "alive", "subject", "until")

    def __init__(
        self,
        subject: str,
        *,
        publish: Iterable[str] = (),
        subscribe: Iterable[str] = (),
        admin: bool = False,
        until: float | None = None,
    ) -> None:
        self.subject = subject
        self.admin = admin
        self.until = until
        self.alive = True
        self._publish: Patterns[None] = Patterns((pattern, None) for pattern in publish)
        self._subscribe: Patterns[None] = Patterns((pattern, None) for pattern in subscribe)

    def __repr__(self) -> str:
        return f"Grant({self.subject!r}{'' if self.alive else ', ended'})"

    def end(self) -> None:
        """End the grant: it allows nothing any more, and its holders must have their requests authorised anew."""
        self.alive = False

    @property
    def publishes(self) -> bool:
        """Whether it allows publishing to any topic."""
        return self.admin or bool(self._publish)

    @property
    def subscribes(self) -> bool:
        """Whether it allows subscribing to any topic."""
        return self.admin or bool(self._subscribe)

    def may_publish(self, topic: str) -> bool:
        return self.admin or self._publish.matches(topic)

    def may_subscribe(self, item: str) -> bool:
        """Whether one of its patterns matches the topic `item`, or covers the pattern `item`."""
        return self.admin or self._subscribe.matches(item)
