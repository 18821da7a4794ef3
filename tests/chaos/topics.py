"""The topics of a run, lists of them, and what a list matches: written apart from the service's own matcher."""

import random
from functools import lru_cache

CROWD = "crowd/news"
TOPICS = [f"load/{number}/{part}" for number in range(8) for part in "abc"] + ["load/hot", "rare/1", "rare/2"]
PATTERNS = ["load/*/a", "load/3/*", "load/**", "rare/*", "*/hot", "load/5/**", "hooks/*", "hooks/**", "*/*/c", "**"]
# Patterns that wake a follower for a few messages a second at most come more often: the load is to stay small.
WEIGHTS = [4, 4, 1, 6, 3, 4, 4, 2, 1, 1]


class Topics(tuple[str, ...]):
    """The items of a list: topics and patterns."""

    __slots__ = ()

    @property
    def exact(self) -> bool:
        return not any("*" in item for item in self)

    def matches(self, topic: str) -> bool:
        return any(_matches(item, topic) for item in self)


@lru_cache(100_000)
def _matches(item: str, topic: str) -> bool:
    mine, theirs = item.split("/"), topic.split("/")
    if mine[-1] == "**":
        mine = mine[:-1] + ["*"] * (len(theirs) - len(mine) + 1)
    return len(mine) == len(theirs) and all(one in ("*", other) for one, other in zip(mine, theirs, strict=True))


def some_topics(rng: random.Random) -> Topics:
    """Exact topics, patterns, or both."""
    kind = rng.random()
    exact = rng.sample(TOPICS, rng.choice([1, 1, 2, 3, 8])) if kind < 0.7 else []
    patterns = rng.choices(PATTERNS, WEIGHTS, k=rng.choice([1, 1, 2])) if kind > 0.5 else []
    return Topics(dict.fromkeys(exact + patterns))
