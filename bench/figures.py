"""What a measurement gives: figures, each a ratio of alternating pairs, void when anything was lost."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True, slots=True)
class Aim:
    """What the ratio should be: at most or at least `ratio`."""

    sign: str
    ratio: float

    def met(self, ratio: float) -> bool:
        return ratio <= self.ratio if self.sign == "≤" else ratio >= self.ratio

    def __str__(self) -> str:
        return f"{self.sign} {self.ratio:g}x"


def at_most(ratio: float) -> Aim:
    return Aim("≤", ratio)


def at_least(ratio: float) -> Aim:
    return Aim("≥", ratio)


@dataclass(slots=True)
class Figure:
    """`ours` and `theirs` hold one value for each pair, in `unit`. `void` says what was lost, repeated or refused."""

    what: str
    flush: str
    unit: str
    ours: Sequence[float]
    theirs: Sequence[float]
    aim: Aim | None = None
    void: Sequence[str] = ()

    @property
    def ratios(self) -> list[float]:
        return [ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True)]

    @property
    def ratio(self) -> float:
        return median(self.ratios)

    @property
    def verdict(self) -> str:
        if self.void:
            return "void"
        if self.aim is None:
            return ""
        return "met" if self.aim.met(self.ratio) else "missed"


@dataclass(frozen=True, slots=True)
class Measured:
    """Figures, and what else a reader must know to believe them."""

    figures: Sequence[Figure]
    note: str = ""


async def pairs(count: int, ours: Callable[[], Awaitable[T]], theirs: Callable[[], Awaitable[U]]) -> list[tuple[T, U]]:
    """Alternate between the two: whatever else the machine does meanwhile meets both."""
    return [(await ours(), await theirs()) for _ in range(count)]


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
