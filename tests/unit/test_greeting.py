"""What `serve` says when it is ready: commands to copy."""

import logging

import pytest

from notifier.settings import Settings
from notifier.web.process import greet


@pytest.mark.parametrize(
    ("host", "port", "url"),
    [
        ("127.0.0.1", 8080, "http://127.0.0.1:8080"),
        ("::1", 40123, "http://[::1]:40123"),
        ("localhost", 1, "http://localhost:1"),
    ],
)
def test_the_commands_name_the_address_that_was_got(host, port, url, caplog):
    caplog.set_level(logging.INFO)
    greet(Settings(host=host), port)
    assert f"serves on {url}" in caplog.text
    assert f"curl '{url}/v1/topics/hello'" in caplog.text
    assert f"""-d '{{"hello": "world"}}' {url}/v1/topics/hello""" in caplog.text
