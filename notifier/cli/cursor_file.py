"""The file in which `notifier subscribe --state` keeps its cursor over runs, crashes and power cuts."""

import os
import re
from pathlib import Path


class CursorFile:
    def __init__(self, path: str) -> None:
        self._path = Path(os.path.realpath(path))  # a link stays, and leads to the new file
        self._beside = self._path.with_name(self._path.name + ".new")
        self._saved: str | None = None

    def load(self) -> str | None:
        """The cursor; None without a file. ValueError for a file that holds something else, and OSError where it could
        not be replaced: before anything is printed, which would come again and again otherwise."""
        self._beside.touch()
        self._beside.unlink()
        try:
            text = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        if not re.fullmatch(r"[0-9]{1,19}\n?", text):
            raise ValueError(f"{self._path} does not hold a cursor. Remove it to begin anew.")
        self._saved = text.strip()
        return self._saved

    def save(self, cursor: str) -> None:
        """Replace the file: after a crash it has either the old cursor or the new one."""
        if cursor == self._saved:
            return
        with self._beside.open("w", encoding="utf-8") as beside:
            beside.write(f"{cursor}\n")
            beside.flush()
            os.fsync(beside.fileno())
        self._beside.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self._saved = cursor
