"""What a measurement gives: figures, most of them ratios of alternating pairs, void when anything was lost."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from math import inf
from statistics import median
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")

RATIO = "x"


@dataclass(frozen=True, slots=True)
class Aim:
    """What the ratio should be, or the value itself if there is another `unit`."""

    sign: str
    value: float
    unit: str = RATIO

    def met(self, value: float) -> bool:
        return {"≤": value <= self.value, "≥": value >= self.value, "=": value == self.value}[self.sign]

    def __str__(self) -> str:
        return f"{self.sign} {self.value:g}{self.unit if self.unit == RATIO else ' ' + self.unit}"


def at_most(value: float, unit: str = RATIO) -> Aim:
    return Aim("≤", value, unit)


def at_least(ratio: float) -> Aim:
    return Aim("≥", ratio)


def same() -> Aim:
    return Aim("=", 1)


@dataclass(slots=True)
class Figure:
    """`ours` and `theirs` hold one value for each pair, in `unit`; without `theirs` (of `peer`, unless the section says
    whose they are) the value stands for itself. `where`: the flush, or how many clients. `void` says what was lost,
    repeated or refused. What is `required` and aimed at stands in the table of scenarios."""

    what: str
    where: str
    unit: str
    ours: Sequence[float]
    theirs: Sequence[float] = ()
    void: Sequence[str] = ()
    peer: str = ""
    required: Aim | None = None
    aim: Aim | None = None

    @property
    def ratios(self) -> list[float]:
        return [ours / theirs if theirs else inf for ours, theirs in zip(self.ours, self.theirs, strict=True)]

    @property
    def ratio(self) -> float:
        return median(self.ratios)

    @property
    def verdict(self) -> str:
        if self.void:
            return "void"
        if self.required and not self._meets(self.required):
            return "missed"
        if self.aim and not self._meets(self.aim):
            return "aim missed" if self.required else "missed"
        return "met" if self.aim or self.required else ""

    def _meets(self, aim: Aim) -> bool:
        return aim.met(self.ratio if aim.unit == RATIO else median(self.ours))


@dataclass(frozen=True, slots=True)
class Measured:
    """Figures, and what else a reader must know to believe them. `failed`: what could not be measured, and why."""

    figures: Sequence[Figure]
    note: str = ""
    failed: Sequence[str] = ()

    @property
    def valid(self) -> bool:
        return not self.failed and not any(figure.void for figure in self.figures)


async def pairs(count: int, ours: Callable[[], Awaitable[T]], theirs: Callable[[], Awaitable[U]]) -> list[tuple[T, U]]:
    """Alternate between the two: whatever else the machine does meanwhile meets both."""
    return [(await ours(), await theirs()) for _ in range(count)]


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
