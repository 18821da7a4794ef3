"""Packages of npm, pinned by a lock file, installed once for all runs."""

from pathlib import Path

from bench.peers.once import once, said

_CI = ("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")


def installed(folder: Path) -> Path:
    """The `node_modules` of `folder`, as its lock file has it; tests at work at the same time wait for one another."""
    modules = folder / "node_modules"
    once(modules, folder / "package-lock.json", lambda: said(_CI, folder))
    return modules
