"""The recipes of docs/recipes as processes of their own, with the packages that they name."""

import asyncio
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import DEADLINE_S, ROOT, admin
from support.npm import installed

from bench.peers.once import once, said
from bench.peers.serving import started
from bench.pgbench import libpq_variables

RECIPES = ROOT / "docs" / "recipes"
DJANGO = RECIPES / "django"
ENVIRONMENT = ROOT / ".venv" / "recipes"
PYTHON = ENVIRONMENT / "bin" / "python"
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
EXPRESS = RECIPES / "express"
RAILS = RECIPES / "rails"

SECRET = "a-secret-of-32-bytes-or-more-for-tests"


@pytest.fixture(scope="session")
def packages() -> None:
    """What the recipes import is there."""

    def make() -> None:
        shutil.rmtree(ENVIRONMENT, ignore_errors=True)
        venv.create(ENVIRONMENT, with_pip=True)
        pip = (PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input")
        said([*pip, "--require-hashes", "-r", REQUIREMENTS])

    once(ENVIRONMENT, REQUIREMENTS, make)
    installed(EXPRESS)


@pytest.fixture
def command(tmp_path: Path) -> Path:
    """A folder for PATH in which `notifier` is a command, as after `pip install`."""
    notifier = tmp_path / "bin" / "notifier"
    notifier.parent.mkdir()
    notifier.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m notifier "$@"\n')
    notifier.chmod(0o755)
    return notifier.parent


@dataclass(frozen=True)
class Recipe:
    """`program` is what it is started with, and `health` a path that it answers to everybody."""

    name: str
    program: tuple[str | Path, ...]
    health: str = "/"


FLASK = Recipe("Flask", (PYTHON, "-m", "gunicorn", "--chdir", RECIPES, "flask_app:app"))
FASTAPI = Recipe("FastAPI", (PYTHON, "-m", "uvicorn", "--app-dir", RECIPES, "--port=PORT", "fastapi_app:app"))
EXPRESS_APP = Recipe("Express", ("node", EXPRESS / "app.js"))
RAILS_APP = Recipe("Rails", ("puma", "--dir", RAILS, "--bind=tcp://127.0.0.1:PORT"))
DJANGO_PROJECT = Recipe("Django", (PYTHON, "-m", "gunicorn", "--chdir", DJANGO, "shop.wsgi"), "/accounts/login/")


def environment(database: str) -> dict[str, str]:
    """What each recipe reads."""
    return {
        "DATABASE_URL": database,
        "SECRET_KEY": "for the test",
        "NOTIFIER_JWT_SECRET": SECRET,
        "ALLOWED_HOSTS": "localhost 127.0.0.1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


@asynccontextmanager
async def running_recipe(
    recipe: Recipe, database: str, notifier_url: str, port: int, folder: Path
) -> AsyncIterator[str]:
    """The origin of the application, which runs on `port`."""
    program = [str(part).replace("PORT", str(port)) for part in recipe.program]
    variables = (environment_of_rails if recipe is RAILS_APP else environment)(database)
    variables |= {"NOTIFIER_URL": notifier_url}
    async with started(program, port, folder, recipe.health, variables):
        yield f"http://localhost:{port}"


def environment_of_rails(database: str) -> dict[str, str]:
    """Ruby's URI refuses a user without a host, as the URL of a database behind a Unix socket has it."""
    variables = libpq_variables(database)
    ours = {"DATABASE_URL": f"postgresql:///{variables['PGDATABASE']}", "SECRET_KEY_BASE": "for the test"}
    return environment(database) | variables | ours | {"RAILS_ENV": "production"}


async def make_tables(recipe: Recipe, database: str) -> None:
    """What the application keeps in its database."""
    if recipe is RAILS_APP:
        load = ["ruby", "-r", "./config/environment", "-e", 'load "db/schema.rb"']
        await asyncio.to_thread(said, load, RAILS, environment_of_rails(database))
    else:
        await admin(database, (RECIPES / "schema.sql").read_text())


def manage(database: str, command: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`manage.py`, run as in an environment where `notifier` is installed."""
    variables = os.environ | environment(database) | {"PATH": f"{command}:{os.environ['PATH']}"}
    return subprocess.run(
        [PYTHON, DJANGO / "manage.py", *arguments],
        cwd=DJANGO,
        env=variables,
        capture_output=True,
        text=True,
        timeout=3 * DEADLINE_S,
        check=False,
    )
