"""What runs on Node.js: packages from js/package-lock.json."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bench.peers.once import is_made, once, said
from bench.peers.peer import FOLDER

JS = FOLDER / "js"
MODULES = JS / "node_modules"


@dataclass(frozen=True)
class Node:
    def missing(self, packages: Sequence[str]) -> str | None:
        if not shutil.which("node"):
            return "Node.js"
        return "what npm installs" if packages and not is_made(MODULES) else None

    def install(self) -> None:
        if not shutil.which("npm"):
            raise RuntimeError("Node.js with npm is missing")
        command = ("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
        once(MODULES, JS / "package-lock.json", lambda: said(command, JS))

    def version(self, packages: Sequence[str]) -> str:
        parts = []
        for package in packages:
            described = json.loads((MODULES / package / "package.json").read_text())
            parts.append(f"{package} {described['version']} on ")
        return "".join(parts) + f"node {node_version()}"

    def command(self, program: Sequence[str], _port: int, _folder: Path) -> Sequence[str]:
        return (shutil.which("node") or "node", str(JS / program[0]))


@cache
def node_version() -> str:
    return said(["node", "--version"]).removeprefix("v")


NODE = Node()
