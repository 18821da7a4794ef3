"""The policy: a function of the user's own in the database, which may refuse topics that a grant allows."""

import asyncio
import logging
from collections.abc import Iterable
from typing import Any, Literal, TypeAlias

from notifier.core.errors import Unavailable
from notifier.core.generations import Generations
from notifier.core.grants import Grant
from notifier.core.memory import MemoryBudget
from notifier.postgres.policy import CallFailed, PolicyFunction

log = logging.getLogger(__name__)

Action: TypeAlias = Literal["publish", "subscribe"]

# Of a request, in all: a poll that does not want to wait is answered within it, so most callers do not give up.
DEADLINE_S = 1.0
# Questions that wait: each is a task, and its request.
MAX_WAITING = 1000

# Answers remembered for one grant: as many as a batch has topics.
MAX_ANSWERS = 1000
# Answers that nobody has used for one to two of these are forgotten.
FORGET_S = 600.0
# Of all answers that were used during FORGET_S: 30,000 grants with a topic each. Those beyond are asked for anew.
MAX_BYTES = 16 * 1024 * 1024
# As measured: the answers of a grant, and each of them with its topic.
GRANT_BYTES = 400
ANSWER_BYTES = 150

SILENT_TEXT = "The policy of this server does not answer at the moment, so this is not allowed now. Try again."

# Between lines about failures: each caller could cause many.
LOG_S = 10.0


class _Answers:
    """What the policy has said about one grant."""

    __slots__ = ("allowed", "size")

    def __init__(self) -> None:
        self.allowed: dict[tuple[Action, str], bool] = {}
        self.size = GRANT_BYTES


class Policy:
    """Asks the function once for each topic, action and grant, and remembers what it said while the grant is alive.

    A grant ends when its subject's access changes, so nothing that was said before is used after that.
    """

    def __init__(self, function: PolicyFunction, memory: MemoryBudget) -> None:
        self._function = function
        self._memory = memory
        self._said: Generations[Grant, _Answers] = Generations(memory, FORGET_S, min(MAX_BYTES, memory.limit // 16))
        self._asking: dict[tuple[Grant, Action, tuple[str, ...]], asyncio.Task[dict[str, bool]]] = {}
        self._loop = asyncio.get_running_loop()
        self._logged = float("-inf")

    @property
    def size(self) -> int:
        """Bytes that it remembers, about."""
        return self._said.size

    async def start(self) -> None:
        """SettingsError unless the function is there and fits. UNAVAILABLE."""
        await self._function.check()

    async def refused(self, grant: Grant, action: Action, topics: Iterable[str], deadline: float) -> str | None:
        """The first of `topics` that it refuses. Unavailable where it cannot tell by `deadline` (loop time)."""
        topics = tuple(dict.fromkeys(topics))
        answers = self._said.get(grant, self._loop.time())
        known = answers.allowed if answers else {}
        said = {topic: known[action, topic] for topic in topics if (action, topic) in known}
        if unknown := tuple(topic for topic in topics if topic not in said):
            said |= await self._ask_once(grant, action, unknown, deadline)
        return next((topic for topic in topics if not said[topic]), None)

    async def close(self) -> None:
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._function.close()

    async def _ask_once(
        self, grant: Grant, action: Action, topics: tuple[str, ...], deadline: float
    ) -> dict[str, bool]:
        """Equal questions in flight are one. Only of the same grant: one of another could be from before a change. It
        goes on when a client disconnects: others may wait too."""
        key = (grant, action, topics)
        task = self._asking.get(key)
        if task is None:
            if len(self._asking) >= MAX_WAITING:
                raise Unavailable(SILENT_TEXT)
            task = self._asking[key] = asyncio.create_task(self._answers(*key))
            task.add_done_callback(lambda done: self._done(key, done))
        try:
            async with asyncio.timeout_at(deadline):
                return await asyncio.shield(task)
        except TimeoutError as error:
            raise Unavailable(SILENT_TEXT) from error

    def _done(self, key: tuple[Grant, Action, tuple[str, ...]], task: asyncio.Task[Any]) -> None:
        del self._asking[key]
        if not task.cancelled():
            task.exception()  # retrieved, even if all its waiters are gone

    async def _answers(self, grant: Grant, action: Action, topics: tuple[str, ...]) -> dict[str, bool]:
        try:
            refused = _refused(await self._function.call(grant.subject, action, topics), topics)
        except CallFailed as error:
            self._log(str(error))
            raise Unavailable(SILENT_TEXT) from error
        said = {topic: topic not in refused for topic in topics}
        self._remember(grant, action, said)
        return said

    def _log(self, reason: str) -> None:
        now = self._loop.time()
        if now - self._logged >= LOG_S:
            self._logged = now
            log.warning("policy: %s; callers are refused", reason)

    def _remember(self, grant: Grant, action: Action, said: dict[str, bool]) -> None:
        if not grant.alive or self._memory.full:
            return
        now = self._loop.time()
        answers = self._said.get(grant, now)
        if answers is None:
            answers = _Answers()
            self._said.add(grant, answers, now)
        before = answers.size
        for topic, allowed in said.items():
            if (action, topic) not in answers.allowed:
                answers.size += ANSWER_BYTES + len(topic)
            answers.allowed[action, topic] = allowed
        while len(answers.allowed) > MAX_ANSWERS:
            _, oldest = next(iter(answers.allowed))
            del answers.allowed[next(iter(answers.allowed))]
            answers.size -= ANSWER_BYTES + len(oldest)
        self._said.grew(answers.size - before)


def _refused(returned: object, topics: Iterable[str]) -> set[str]:
    """Those of `topics` in the array that the function returned; null is an empty one. CallFailed where it is anything
    else. A null in it may be a topic that the function failed to make, and a topic that it was not asked about means
    that it refuses something else than we would understand."""
    if returned is None:
        return set()
    if not isinstance(returned, list) or not all(isinstance(item, str) for item in returned):
        raise CallFailed("it returned something else than an array of topics")
    if not set(returned) <= set(topics):
        raise CallFailed("it returned topics that it was not asked about")
    return set(returned)
