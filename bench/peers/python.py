"""What runs on Python: packages from requirements.txt, in an environment of their own."""

import shutil
import sys
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.peers.once import is_made, once, said
from bench.peers.peer import FOLDER

ENVIRONMENT = FOLDER.parent.parent / ".venv" / "peers"
EXECUTABLE = ENVIRONMENT / "bin" / "python"
REQUIREMENTS = FOLDER / "requirements.txt"


@dataclass(frozen=True)
class Python:
    executable: Path = EXECUTABLE

    def missing(self, _: Sequence[str]) -> str | None:
        return None if self != PYTHON or is_made(ENVIRONMENT) else "what pip installs"

    def install(self) -> None:
        once(ENVIRONMENT, REQUIREMENTS, make)

    def version(self, packages: Sequence[str]) -> str:
        script = "import sys\nfrom importlib.metadata import version\nprint(*map(version, sys.argv[1:]))"
        versions = said([self.executable, "-c", script, *packages]).split()
        names = ", ".join(f"{package} {version}" for package, version in zip(packages, versions, strict=True))
        return f"{names} on Python {'.'.join(map(str, sys.version_info[:3]))}"

    def command(self, program: Sequence[str], port: int, _: Path) -> Sequence[str]:
        tool, *options = (part.replace("PORT", str(port)) for part in program)
        script = self.executable.with_name(tool)
        return (str(self.executable), *([str(script)] if script.exists() else ["-m", tool]), *options)


def make() -> None:
    shutil.rmtree(ENVIRONMENT, ignore_errors=True)
    venv.create(ENVIRONMENT, with_pip=True)
    pip = (EXECUTABLE, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input")
    said([*pip, "--require-hashes", "-r", REQUIREMENTS])


PYTHON = Python()
THIS = Python(Path(sys.executable))  # with what Notifier itself needs

UVICORN = ("uvicorn", "--host=127.0.0.1", "--port=PORT", "--log-level=warning", "--timeout-keep-alive=75")

HYPERCORN = ("hypercorn", "--bind=127.0.0.1:PORT", "--log-level=warning", "--worker-class=uvloop", "--keep-alive=75")


def gunicorn(threads: int) -> Sequence[str]:
    """One worker with `threads`. It accepts no more connections than --worker-connections, 1000 unless told."""
    return (
        *("gunicorn", "--bind=127.0.0.1:PORT", "--log-level=warning", "--keep-alive=75"),
        *("--worker-class=gthread", f"--threads={threads}", f"--worker-connections={2 * threads}"),
    )
