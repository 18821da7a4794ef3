"""`notifier publish` against a real server, and its exit status where there is none."""

import base64
import json
import subprocess
import sys
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from conftest import Server, free_port, run

from notifier.cli import main

NOTIFIER = [sys.executable, "-m", "notifier"]


def last_message(server: Server, topic: str) -> dict:
    with urllib.request.urlopen(f"{server.url}/v1/topics/{topic}?last=1&wait=0", timeout=20) as response:
        return json.load(response)["messages"][-1]


@pytest.mark.rule("L-2")
def test_it_prints_the_id_and_nothing_else(server):
    done = run(*NOTIFIER, "publish", "orders/42", '{"status": "paid"}', env=server.env)
    message = last_message(server, "orders/42")
    assert (done.returncode, done.stdout, done.stderr) == (0, message["id"] + "\n", "")
    assert message["data"] == {"status": "paid"}


def test_the_display_fields_are_sent(server):
    fields = ["--title", "Grüße & mehr", "--click", "https://a.b/?c=d&e", "--priority", "4", "--tags", "money,now"]
    assert run(*NOTIFIER, "publish", "t", "1", *fields, env=server.env).returncode == 0
    message = last_message(server, "t")
    assert (message["title"], message["click"]) == ("Grüße & mehr", "https://a.b/?c=d&e")
    assert (message["priority"], message["tags"]) == (4, ["money", "now"])


@pytest.mark.rule("L-2", "P-40")
def test_with_a_key_it_can_be_run_again(server):
    command = [*NOTIFIER, "publish", "orders/42", "1", "--idempotency-key", "order-42"]
    first, again = run(*command, env=server.env), run(*command, env=server.env)
    assert (first.returncode, again.returncode, first.stdout) == (0, 0, again.stdout)
    assert len(first.stdout) > 1
    other = run(*command[:-1], "order-43", env=server.env)
    assert (other.returncode, other.stdout != first.stdout) == (0, True)
    conflict = run(*NOTIFIER, "publish", "orders/42", "2", "--idempotency-key", "order-42", env=server.env)
    assert (conflict.returncode, "another request" in conflict.stderr) == (1, True)
    malformed = run(*NOTIFIER, "publish", "orders/42", "1", "--idempotency-key", "a b", env=server.env)
    assert (malformed.returncode, "visible characters" in malformed.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "data", "content_type"),
    [
        (['{"a": [1]}'], {"a": [1]}, None),
        (["-5"], -5, None),
        (["disk full"], "disk full", "text/plain; charset=utf-8"),
        (["grün"], "grün", "text/plain; charset=utf-8"),
        (["--text", "42"], "42", "text/plain; charset=utf-8"),
        (["--type", "text/html", "<b>"], "<b>", "text/html"),
        (["--", "--text"], "--text", "text/plain; charset=utf-8"),
    ],
)
@pytest.mark.rule("L-2")
def test_data_is_json_or_text_or_of_the_given_type(server, arguments, data, content_type):
    done = run(*NOTIFIER, "publish", "t", *arguments, env=server.env)
    assert (done.returncode, done.stderr) == (0, "")
    message = last_message(server, "t")
    assert (message["data"], message.get("content_type")) == (data, content_type)


@pytest.mark.rule("L-2")
def test_standard_input_is_sent_byte_for_byte(server):
    image = b"\x89PNG\r\n\x00\xff"
    done = subprocess.run(
        [*NOTIFIER, "publish", "t", "-", "--type", "image/png"],
        env=server.env,
        input=image,
        capture_output=True,
        timeout=20,
        check=True,
    )
    assert done.stderr == b""
    message = last_message(server, "t")
    assert (base64.b64decode(message["data"]), message["encoding"]) == (image, "base64")


@pytest.mark.rule("L-1")
def test_a_refusal_is_one_line_with_status_1(server):
    for arguments in (["a//b", "1"], ["t", "{", "--type", "application/json"], ["t", "1", "--priority", "9"]):
        done = run(*NOTIFIER, "publish", *arguments, env=server.env)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("notifier: ")
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.rule("L-1")
def test_a_server_that_is_not_there_is_status_3(server):
    url = f"http://127.0.0.1:{free_port()}"
    done = run(*NOTIFIER, "publish", "t", "1", "--url", url, env=server.env)
    assert (done.returncode, done.stdout) == (3, "")
    assert "cannot be reached" in done.stderr


@pytest.mark.rule("L-1")
def test_a_server_that_goes_away_before_it_answers_is_status_4(server, tmp_path):
    # It takes the request, says nothing and goes.
    deaf = (
        "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); "
        "c, _ = s.accept(); c.recv(65536); c.close()"
    )
    with subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        url = f"http://127.0.0.1:{int(process.stdout.readline())}"
        done = run(*NOTIFIER, "publish", "t", "1", "--url", url, env=server.env)
    assert (done.returncode, done.stdout) == (4, "")
    assert "may be stored or not" in done.stderr


@pytest.mark.rule("L-1", "C-10")
def test_what_a_gateway_refuses_is_status_3(capfd: pytest.CaptureFixture[str]) -> None:
    class Gateway(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Gateway) as gateway:
        threading.Thread(target=gateway.handle_request, daemon=True).start()
        assert main(["publish", "t", "1", "--url", f"http://127.0.0.1:{gateway.server_port}"]) == 3
    assert capfd.readouterr().err == "notifier: Something else than Notifier answers: HTTP 404 Not Found\n"


@pytest.mark.rule("L-2")
def test_it_publishes_later_and_prints_what_takes_it_back(server):
    done = run(*NOTIFIER, "publish", "t", "1", "--delay", "1h", env=server.env)
    assert (done.returncode, done.stderr) == (0, "")
    taking = urllib.request.Request(f"{server.url}/v1/scheduled/{done.stdout.strip()}", method="DELETE")
    with urllib.request.urlopen(taking, timeout=20) as response:
        assert response.status == 204
    done = run(*NOTIFIER, "publish", "t", "1", "--at", "tomorrow", env=server.env)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Words such as 'tomorrow' are not understood." in done.stderr
