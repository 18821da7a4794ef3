"""The README is true: its commands are run, as they stand, against a real server."""

import json
import os
import re
import select
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import asyncpg
import pytest
from conftest import ROOT, Server

from notifier.settings import Settings

README = (ROOT / "README.md").read_text()
SETTINGS = (ROOT / "docs" / "settings.md").read_text()
BLOCK = re.compile(r"(?:^<!-- (?P<note>.*?) -->\n)?^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)

# Of a command whose message another one waits for: more than enough for that to have started.
ATTEMPTS = 10


@dataclass
class Block:
    kind: str
    text: str
    background: bool
    prints: str

    def at(self, server: Server) -> str:
        return self.text.replace("http://127.0.0.1:8080", server.url)


def blocks(kind: str) -> list[Block]:
    found = []
    for match in BLOCK.finditer(README):
        note = match["note"] or ""
        if match["kind"] == kind:
            found.append(Block(kind, match["text"], "background" in note, note.partition("prints: ")[2]))
    return found


@pytest.mark.all
def test_every_shell_command_does_what_the_readme_says(server: Server, tmp_path: Path) -> None:
    """As it is printed, in a terminal of its own, where `make run` has set up what it names."""
    assert (ROOT / ".venv" / "bin" / "notifier").exists()
    shell = {name: value for name, value in server.env.items() if name not in {"SECRET", "VIRTUAL_ENV"}}
    found = blocks("sh")
    assert len(found) >= 8
    waiting: list[tuple[Block, subprocess.Popen[bytes]]] = []
    with ExitStack() as stack:
        for block in found:
            assert block.prints, block.text
            text = block.at(server).replace("orders.cursor", str(tmp_path / "orders.cursor"))
            command = ["bash", "-euo", "pipefail", "-c", text]
            if block.background:
                process = subprocess.Popen(command, env=shell, cwd=ROOT, stdout=subprocess.PIPE, bufsize=0)
                stack.enter_context(process)
                stack.callback(process.kill)
                waiting.append((block, process))
                continue
            again = partial(run_block, block, command, shell)
            again()
            waiting = [(waiter, process) for waiter, process in waiting if not printed(waiter, process, again)]
        # Commands that follow forever print what the programs above them have published.
        assert all(printed(waiter, process, again) for waiter, process in waiting)


@pytest.mark.all
@pytest.mark.rule("C-10")
def test_the_loop_of_curl_goes_on_from_its_cursor_whatever_answers(tmp_path: Path) -> None:
    [block] = [block for block in blocks("sh") if "while true" in block.text]
    pauses = tmp_path / "sleep"
    pauses.write_text("#!/bin/sh\n")
    pauses.chmod(0o755)
    answers = [
        (404, "404 page not found"),
        (302, ""),
        (200, "<html>Log in</html>"),
        (200, '{"messages": [{"id": "1", "data": {"cursor": "8"}}], "cursor": "2", "gap": {"reason": "retention"}}'),
        (200, ""),
        (503, '{"code": "unavailable"}'),
        (200, '{"messages": [\n{"id": "3",\n"data": 1}], "cursor": "3"}'),
        (200, '{"messages": [], "cursor": "4"}'),
    ]
    asked = []

    class Gateway(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path.partition("?after=")[2])
            status, body = answers[len(asked) - 1] if len(asked) <= len(answers) else (200, "")
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())
            if len(asked) == len(answers) + 1:
                process.terminate()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Gateway) as gateway:
        text = block.text.replace("http://127.0.0.1:8080", f"http://127.0.0.1:{gateway.server_port}")
        env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
        process = subprocess.Popen(
            ["bash", "-c", text], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        threading.Thread(target=gateway.serve_forever, daemon=True).start()
        lines, errors = process.communicate(timeout=60)
        gateway.shutdown()
    assert [json.loads(line)["id"] for line in lines.splitlines()] == ["1", "3"]
    assert asked[: len(answers) + 1] == ["earliest"] * 4 + ["2"] * 3 + ["3", "4"]
    assert '{"reason":"retention"}' in errors


def run_block(block: Block, command: list[str], shell: dict[str, str]) -> None:
    done = subprocess.run(command, env=shell, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, (block.text, done.stderr)
    assert block.prints in done.stdout, (block.text, done.stdout, done.stderr)


def printed(block: Block, process: subprocess.Popen[bytes], again: Callable[[], None]) -> bool:
    """Wait until a command in the background has printed what the README says it does.

    It may have begun to wait only after the command that it waits for has run: then that has to run `again`.
    """
    said = b""
    for _ in range(ATTEMPTS):
        while select.select([process.stdout], [], [], 2)[0]:
            said += (chunk := os.read(process.stdout.fileno(), 65536))
            if block.prints.encode() in said:
                return True
            assert chunk, f"{block.text} ended without printing {block.prints}"
        again()
    raise AssertionError(f"{block.text} does not print {block.prints}")


async def test_every_sql_statement_publishes(server: Server, database: str, sql: asyncpg.Connection) -> None:
    publish, grants, watch = blocks("sql")
    await sql.execute(publish.text)
    await sql.execute("create role web")
    try:
        await sql.execute(grants.text)
        await sql.execute("set role web")
        await sql.execute(publish.text)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await sql.execute("select * from notifier.message")
        await sql.execute("reset role")
    finally:
        await sql.execute("drop owned by web; drop role web")
    await sql.execute("create schema shop; set search_path = shop")
    await sql.execute(watch.text)
    with urllib.request.urlopen(f"{server.url}/v1/topics/orders/43?last=2&wait=20", timeout=30) as response:
        messages = json.load(response)["messages"]
    assert [message["data"]["op"] for message in messages] == ["insert", "update"]


def test_every_python_program_runs(server: Server) -> None:
    printed = ""
    for block in blocks("python"):
        done = subprocess.run(
            [sys.executable, "-c", block.at(server)],
            env=server.env,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        printed += done.stdout
    assert "orders/42 {'status': 'paid'}" in printed


def test_a_poll_prints_what_the_readme_shows(server: Server) -> None:
    [block] = blocks("json")
    shown = json.loads(block.text)
    [expected] = shown["messages"]
    body = json.dumps(expected["data"]).encode()
    with urllib.request.urlopen(f"{server.url}/v1/topics/{expected['topic']}", data=body, timeout=20) as response:
        published = json.load(response)
    with urllib.request.urlopen(f"{server.url}/v1/topics/orders/*?last=1", timeout=20) as response:
        answer = json.load(response)
    [message] = answer["messages"]
    varying = {name: message[name] for name in ("id", "time")}
    assert len(varying["time"]) == len(expected["time"])
    assert answer == {"messages": [expected | varying], "cursor": published["id"]}
    assert shown["cursor"] == expected["id"]


@pytest.mark.all
def test_the_javascript_program_runs(server: Server, tmp_path: Path) -> None:
    block, connecting, _ = blocks("js")  # the last one is for a page: tests/browser/test_other_origins.py
    programs = {
        "orders/42": block.text.replace("{ last: 10 }", f'{{ last: 10, url: "{server.url}" }}'),
        "logs/web": "const draw = ([{ topic, data }]) => (console.log(topic, data), stop(), notifier.close());\n"
        + connecting.text.replace("connect({ ", f'connect({{ url: "{server.url}", '),
    }
    # Node imports no modules over HTTP: give it the file that the server serves.
    client = (ROOT / "static" / "client.js").as_uri()
    for topic, program in programs.items():
        (tmp_path / "program.mjs").write_text(program.replace("http://127.0.0.1:8080/client.js", client))
        publish = [sys.executable, "-m", "notifier", "publish", topic, '"js"']
        subprocess.run(publish, env=server.env, check=True, timeout=30)
        node = ["node", tmp_path / "program.mjs"]
        done = subprocess.run(node, capture_output=True, text=True, timeout=30, check=False)
        assert done.stdout == f"{topic} js\n", done.stderr


def test_the_settings_table_has_every_setting_and_no_other() -> None:
    first_cells = re.findall(r"^\| (`[A-Z_]+`(?:, `[A-Z_]+`)*) \|", SETTINGS, re.MULTILINE)
    table = {name for cell in first_cells for name in re.findall(r"[A-Z_]+", cell)}
    source = (ROOT / "notifier" / "settings.py").read_text()
    assert table == set(re.findall(r'read\.\w+\("([A-Z_]+)"', source)) | {"WEB_CONCURRENCY"}
    assert Settings.from_env({}).retention.days == 7
