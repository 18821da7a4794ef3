"""Where the files that are not Python lie: beside the package in a checkout, inside it in a wheel."""

from pathlib import Path
from typing import Literal

_PACKAGE = Path(__file__).resolve().parent


def resource_dir(name: Literal["sql", "templates", "static"]) -> Path:
    """The folder `name`, from the installed wheel if it is there, else from the checkout."""
    packaged = _PACKAGE / name
    return packaged if packaged.is_dir() else _PACKAGE.parent / name
