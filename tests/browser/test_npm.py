"""The client as a package for npm: what is in it, its types, its size, and what bundlers make of it."""

import asyncio
import gzip
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import ROOT, Server
from playwright.async_api import BrowserContext
from support.npm import installed

from browser.conftest import publish

pytestmark = pytest.mark.all

FOLDER = ROOT / "tests" / "npm"
# Bytes, minified and gzipped: what every page loads, and that with what pages load that share a poll. They grow only
# where somebody decides that they may.
LARGEST = 7_600
LARGEST_IN_ALL = 8_800


def run(*command: object, cwd: Path = FOLDER) -> str:
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def tools() -> Path:
    """The folder of the programs that these tests need, installed as the lock file says."""
    return installed(FOLDER) / ".bin"


@pytest.fixture(scope="module")
def application(tools: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the package is installed, from what would be published."""
    folder = tmp_path_factory.mktemp("application")
    [packed] = json.loads(run("npm", "pack", "--json", "--pack-destination", folder, cwd=ROOT / "static"))
    modules = {f"client/{file.name}" for file in (ROOT / "static" / "client").iterdir()}
    beside = {"package.json", "README.md", "client.js", "client.d.ts"}
    assert {file["path"] for file in packed["files"]} == beside | modules
    (folder / "package.json").write_text('{ "type": "module" }')
    run("npm", "install", "--offline", "--no-audit", "--no-fund", folder / packed["filename"], cwd=folder)
    shutil.copy(FOLDER / "types.ts", folder)
    shutil.copytree(FOLDER / "page", folder / "page")
    return folder


def test_the_client_is_as_small_as_it_is_said_to_be(tools: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = []
    for apart in (("--external:./tabs.js",), ()):
        options = ("--bundle", "--minify", "--format=esm", "--target=es2022", *apart)
        minified = run(tools / "esbuild", ROOT / "static" / "client.js", *options)
        sizes.append(len(gzip.compress(minified.encode(), 9, mtime=0)))
    with capsys.disabled():
        print(f"\nclient.js: {sizes[0]} bytes, minified and gzipped; with tabs.js {sizes[1]}")  # noqa: T201
    assert sizes[0] <= LARGEST
    assert sizes[1] <= LARGEST_IN_ALL
    said = "{:.1f} kB minified and gzipped ({:.1f} kB with `share`)".format(*(size / 1000 for size in sizes))
    assert said in (ROOT / "static" / "README.md").read_text()


TSC = ("--target", "es2022", "--module", "esnext", "--lib", "es2022,dom,dom.iterable,dom.asynciterable", "--strict")


def test_the_declarations_are_those_of_the_source(tools: Path, tmp_path: Path) -> None:
    static, source, made = ROOT / "static", tmp_path / "source", tmp_path / "made"
    declared = {file.relative_to(static): file.read_text() for file in static.glob("**/*.d.ts")}
    # Without those, which tsc would read in the place of the source.
    shutil.copytree(static, source, ignore=shutil.ignore_patterns("*.d.ts"))
    emitted = ("--allowJs", "--checkJs", "--declaration", "--emitDeclarationOnly", "--outDir", made)
    run(tools / "tsc", source / "client.js", *TSC, *emitted)
    as_made = {file.relative_to(made): file.read_text() for file in made.glob("**/*.d.ts")}
    assert declared == as_made, f"They are made anew: cp -r {made}/. static"


def test_typescript_knows_everything_that_the_package_has(tools: Path, application: Path) -> None:
    bundler = ("--moduleResolution", "bundler", "--noEmit")
    run(tools / "tsc", "types.ts", *TSC, *bundler, cwd=application)


def test_node_imports_the_package_and_wants_the_url_of_the_service(application: Path) -> None:
    program = 'import("pg-notifier").then(({ connect }) => connect()).catch((error) => console.log(String(error)))'
    assert "TypeError: say where the service is" in run("node", "-e", program, cwd=application)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module", params=["vite", "esbuild"])
def bundled(request: pytest.FixtureRequest, tools: Path, application: Path) -> Iterator[str]:
    """The URL of a page that was bundled with the client in it."""
    built = application / request.param
    page = application / "page"
    if request.param == "vite":
        run(tools / "vite", "build", application / "page", "--outDir", built)
    else:
        # Under a name that the client itself might have.
        run(tools / "esbuild", page / "main.js", "--bundle", "--format=esm", f"--outfile={built}/assets/client.js")
        (built / "index.html").write_text('<script type="module" src="assets/client.js"></script>')
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(built)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.rule("C-20")
@pytest.mark.asyncio(loop_scope="session")
async def test_a_bundled_page_is_told_at_once_that_it_must_say_where_the_service_is(
    context: BrowserContext, bundled: str
) -> None:
    page = await context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await page.goto(bundled)
    await page.wait_for_function("document.title")
    assert "TypeError: say where the service is" in await page.title()
    assert not [url for url in asked if "/v1/" in url]


@pytest.mark.asyncio(loop_scope="session")
async def test_a_bundled_page_that_says_where_it_is_gets_its_messages(
    context: BrowserContext, bundled: str, server: Server
) -> None:
    server.env["NOTIFIER_ORIGINS"] = bundled.rstrip("/")
    await asyncio.to_thread(server.restart)
    await publish(server, "a", "it works")
    page = await context.new_page()
    await page.goto(f"{bundled}?url={server.url}")
    await page.wait_for_function("document.title === 'it works'")
    # What it shares its poll by is in the bundle, too, or beside it.
    await page.wait_for_function("navigator.locks.query().then(({ held }) => held.length)")
