"""What the parent hands to a process that it starts: numbers of open files, and who it is."""

import json
import os
from dataclasses import asdict, dataclass

# The slot of the process that keeps the embedded database.
KEEPER = 0

# The state of a worker: one of these, or the exit code of one that could not start (1 to 3).
STARTING, READY = 0, 255


@dataclass(frozen=True)
class Place:
    """Of one worker. Another version of this program may have written it: then what is missing or unknown is a
    TypeError, the worker fails, and the one before it serves on."""

    slot: int
    parent: int  # its process id
    timeout: float  # seconds without a sign of life after which the parent ends it
    sign: int  # the file of its signs of life, whose first byte is its state
    listeners: tuple[int, ...]
    pipe: int  # the lifeline; for the keeper, its reading end

    @classmethod
    def read(cls, text: str) -> "Place":
        return cls(**json.loads(text))

    def __str__(self) -> str:
        return json.dumps(asdict(self))

    def inherit(self) -> None:
        """Let the program that this process executes next have the files."""
        for number in (self.sign, *self.listeners, self.pipe):
            os.set_inheritable(number, True)

    def keep(self) -> None:
        """Let no program that this process starts have them."""
        for number in (self.sign, *self.listeners, self.pipe):
            os.set_inheritable(number, False)


def state_of(sign: int) -> int:
    state = os.pread(sign, 1, 0)
    return state[0] if state else STARTING


def tell_state(sign: int, state: int) -> None:
    os.pwrite(sign, bytes([state]), 0)
