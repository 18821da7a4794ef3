"""Help texts, and refusals of wrong arguments."""

import os
import re
import shlex
import sys

import pytest
from conftest import ROOT, run

from notifier import __version__
from notifier.cli import help_texts
from notifier.cli.parser import make_parser

NOTIFIER = [sys.executable, "-m", "notifier"]
ENV = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}

COMMANDS = ["serve", "migrate", "publish", "subscribe", "history", "forward", "scheduled", "source", "key", "token"]


@pytest.mark.rule("L-1")
def test_help_lists_the_commands_and_what_each_exit_status_means():
    done = run(*NOTIFIER, "--help", env=ENV)
    assert done.returncode == 0
    assert all(f"\n    {command}" in done.stdout for command in COMMANDS)
    assert all(f"\n  {status} " in done.stdout for status in (0, 1, 2, 3, 4, 130))


@pytest.mark.parametrize(
    "command",
    [
        ["publish"],
        ["subscribe"],
        ["history"],
        ["forward"],
        ["scheduled", "list"],
        ["scheduled", "cancel"],
        ["source", "add"],
        ["key", "create"],
        ["token"],
    ],
)
def test_the_help_of_a_command_has_examples_and_its_environment(command):
    done = run(*NOTIFIER, *command, "--help", env=ENV)
    assert done.returncode == 0
    assert f"\n  notifier {' '.join(command)} " in done.stdout
    assert "\nenvironment:\n" in done.stdout


def test_every_command_that_is_shown_is_one_that_there_is():
    """In the README, in the documents, and as an example of the help."""
    lines: list[str] = []
    for document in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for block in re.findall(r"^ *```\w*\n(.*?)^ *```$", document.read_text(), re.MULTILINE | re.DOTALL):
            lines += block.replace("\\\n", " ").splitlines()
    for name, text in vars(help_texts).items():
        if name.isupper():
            lines += text.replace("\\\n", " ").splitlines()
    shown = [found[1] for line in lines if (found := re.search(r"(?:^|[|&] |bin/)notifier ([a-z].*)", line.strip()))]
    assert len(shown) > 30
    for command in shown:
        words = shlex.split(command, comments=True)
        end = next((at for at, word in enumerate(words) if re.fullmatch("[<>|&]+", word)), len(words))
        try:
            make_parser().parse_args(words[:end])
        except SystemExit:
            pytest.fail(f"notifier {command}")


def test_the_version_is_printed():
    assert run(*NOTIFIER, "--version", env=ENV).stdout == f"notifier {__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["source"],
        ["scheduled"],
        ["scheduled", "cancel"],
        ["scheduled", "cancel", "07"],
        ["scheduled", "cancel", "7", "x/../8"],
        ["key"],
        ["key", "create"],
        ["key", "revoke"],
        ["token"],
        ["token", "7", "--expires", "1"],
        ["key", "create", "k", "--admin", "--expires", "soon"],
        ["key", "create", "k", "--admin", "--expires", "0d"],
        ["key", "create", "k", "--admin", "--expires", "99999d"],
        ["publish"],
        ["publish", "t"],
        ["publish", "t", "1", "--priority", "high"],
        ["publish", "t", "1", "--text", "--type", "text/html"],
        ["publish", "t", "1", "--url", "localhost:8080"],
        ["publish", "t", "1", "--url", "http://user:hunter2@localhost:8080"],
        ["publish", "t", "1", "--url", "http://localhost:port"],
        ["publish", "t", "1", "--url", "http://[::1"],
        ["subscribe"],
        ["subscribe", "t", "--last", "0"],
        ["subscribe", "t", "--count", "²"],
        ["subscribe", "t", "--after", "1", "--last", "1"],
        ["source", "add", "x"],
    ],
)
@pytest.mark.rule("L-1")
def test_wrong_arguments_are_status_2_and_no_traceback(arguments):
    done = run(*NOTIFIER, *arguments, env=ENV)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    assert "hunter2" not in done.stderr


@pytest.mark.parametrize(
    ("env", "url"),
    [
        ({}, "http://127.0.0.1:8080"),
        ({"PORT": "5000"}, "http://127.0.0.1:5000"),
        ({"PORT": "5000", "NOTIFIER_URL": "https://a.b"}, "https://a.b"),
    ],
)
def test_the_server_comes_from_the_environment(env, url):
    assert f"({url})" in run(*NOTIFIER, "publish", "--help", env=ENV | env).stdout


def test_the_clients_commands_load_nothing_of_the_server():
    script = (
        "import sys; from notifier.cli import main; "
        "status = main(['publish', 't', '1', '--url', 'http://127.0.0.1:9']); "
        "loaded = {'asyncpg', 'jinja2', 'notifier.web', 'notifier.service', 'notifier.postgres'} & sys.modules.keys(); "
        "assert (status, loaded) == (3, set()), (status, loaded)"
    )
    done = run(sys.executable, "-c", script, env=ENV)
    assert done.returncode == 0, done.stderr


def test_a_server_listens_before_it_has_loaded_what_takes_long():
    """Until then a restart refuses connections."""
    script = (
        "import sys; from notifier.cli import main; from notifier.web import listeners\n"
        "def listen(settings):\n"
        "    loaded = {'asyncio', 'ssl', 'aiohttp', 'asyncpg', 'gunicorn', 'uvloop'} & sys.modules.keys()\n"
        "    assert not loaded, loaded\n"
        "    raise OSError('enough')\n"
        "listeners.listen = listen\n"
        "sys.exit(main(['serve']))"
    )
    done = run(sys.executable, "-c", script, env=ENV)
    assert (done.returncode, "enough" in done.stdout) == (1, True), done.stderr
