"""`notifier token` signs what a server with the same settings takes."""

import os
import sys
import time

import pytest
from conftest import ROOT, run

from notifier.access.tokens import Tokens
from notifier.settings import Settings

NOTIFIER = [sys.executable, "-m", "notifier"]
FIRST, SECOND = "first" * 8, "second" * 8
ENV = {
    "PATH": os.environ["PATH"],
    "PYTHONPATH": str(ROOT),
    "PYTHONWARNINGS": "error",
    "NOTIFIER_JWT_SECRET": f"{FIRST} {SECOND}",
}


def verified(token: str, **env: str):
    """What a server with the settings in `env` reads."""
    settings = Settings.from_env(env)
    assert settings.tokens
    return Tokens(settings.tokens).verify(token.encode(), time.time())


@pytest.mark.rule("L-6")
def test_a_token_is_signed_with_the_first_secret_and_says_what_was_asked_for():
    done = run(*NOTIFIER, "token", "7", "--subscribe", "user/7/**", "--subscribe", "all", "--publish", "log", env=ENV)
    assert (done.returncode, done.stderr) == (0, "")
    said = verified(done.stdout.strip(), NOTIFIER_JWT_SECRET=FIRST)
    assert (said.subject, said.publish, said.subscribe) == ("7", ("log",), ("user/7/**", "all"))
    assert said.issued
    assert said.expires == said.issued + 3600


@pytest.mark.rule("L-6")
def test_a_token_keeps_to_the_other_settings():
    more = {"NOTIFIER_JWT_AUDIENCE": "us", "NOTIFIER_JWT_ISSUER": "them", "NOTIFIER_JWT_SUBSCRIBE": "user/{sub}/**"}
    done = run(*NOTIFIER, "token", "7", "--expires", "10m", env=ENV | more)
    said = verified(done.stdout.strip(), NOTIFIER_JWT_SECRET=FIRST, **more)
    assert said.subscribe == ("user/7/**",)
    assert said.issued
    assert said.expires == said.issued + 600
    refused = run(*NOTIFIER, "token", "*", env=ENV | more)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "cannot be a segment" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["7", "--subscribe", "a//b"], "'a//b' is not a topic"),
        (["7", "--expires", "2d"], "at most 24 h"),
        ([""], "subject"),
        (["key:x"], "key:"),
        (["\udcff"], "surrogate"),
        (["7", "--publish", "\udcff"], "surrogate"),
    ],
)
def test_what_the_server_would_refuse_is_not_signed(arguments, sentence):
    done = run(*NOTIFIER, "token", *arguments, env=ENV)
    assert (done.returncode, done.stdout) == (1, "")
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_secret_it_says_which_setting_is_missing():
    done = run(*NOTIFIER, "token", "7", env={name: ENV[name] for name in ENV if name != "NOTIFIER_JWT_SECRET"})
    assert (done.returncode, done.stdout) == (2, "")
    assert "NOTIFIER_JWT_SECRET" in done.stderr
