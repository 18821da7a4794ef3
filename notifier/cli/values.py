"""What the arguments of commands may be. All raise argparse.ArgumentTypeError for anything else."""

import argparse
import re
from datetime import timedelta


def visible(text: str) -> str:
    if not re.fullmatch(r"[!-~]{1,255}", text):
        raise argparse.ArgumentTypeError("a key has 1 to 255 visible characters of ASCII")
    return text


def positive(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 9 or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


def id_(text: str) -> str:
    if not re.fullmatch("[1-9][0-9]{0,18}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not an id")
    return text


def limit(text: str) -> int:
    if (number := positive(text)) > 1000:
        raise argparse.ArgumentTypeError("it is at most 1000")
    return number


def few(text: str) -> int:
    if (number := positive(text)) > 10:
        raise argparse.ArgumentTypeError("it is at most 10")
    return number


def span(text: str) -> timedelta:
    units = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
    found = re.fullmatch(r"([0-9]{1,9})([smhd])", text, re.ASCII)
    given = timedelta(**{units[found[2]]: int(found[1])}) if found else timedelta(0)
    if not timedelta(0) < given <= timedelta(days=36500):
        raise argparse.ArgumentTypeError(f"{text!r} is not a span such as 30s, 10m, 12h or 90d")
    return given
