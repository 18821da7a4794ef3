"""Settings: each default, each bound, and that a wrong one is refused in a sentence that names it."""

from datetime import timedelta
from pathlib import Path

import pytest

from notifier.core.rates import Rate
from notifier.settings import Settings, SettingsError, TokenSettings, default_max_parked, is_loopback

URL = "postgres://someone:secret@db.example.com/notifier"


def test_without_any_variable_every_setting_has_its_default():
    settings = Settings.from_env({})
    assert settings.database_url is None
    assert settings.listen_database_url is None
    assert settings.directory == Path(".notifier")
    assert (settings.host, settings.port) == ("127.0.0.1", 8080)
    assert settings.processes == 1
    assert settings.admin_keys == settings.public_subscribe == settings.public_publish == ()
    assert (settings.tokens, settings.policy, settings.open) == (None, None, False)
    assert (settings.origins, settings.trusted_proxies) == (frozenset(), 0)
    assert (settings.failed_rate, settings.publish_rate, settings.poll_rate) == (Rate(60, 60), None, None)
    assert settings.max_parked == default_max_parked()
    assert settings.max_parked_per_address == 0
    assert settings.max_body == 1024 * 1024
    assert settings.retention == timedelta(days=7)


def test_every_setting_is_read_from_its_variable():
    settings = Settings.from_env(
        {
            "DATABASE_URL": URL,
            "LISTEN_DATABASE_URL": "postgresql:///other",
            "HOST": " 0.0.0.0 ",
            "PORT": "80",
            "WEB_CONCURRENCY": "4",
            "NOTIFIER_ADMIN_KEY": " a-long-key!  another-key ",
            "NOTIFIER_PUBLIC_SUBSCRIBE": "news, status/**",
            "NOTIFIER_PUBLIC_PUBLISH": "drop/*",
            "NOTIFIER_JWT_SECRET": "s" * 32 + " " + "t" * 40,
            "NOTIFIER_JWT_KEYS": "https://auth.example.com/jwks.json",
            "NOTIFIER_JWT_AUDIENCE": "notifier",
            "NOTIFIER_JWT_ISSUER": "https://auth.example.com",
            "NOTIFIER_JWT_SUBSCRIBE": "user/{sub}/**,all",
            "NOTIFIER_JWT_PUBLISH": "from/{sub}",
            "NOTIFIER_JWT_LIFETIME": "12h",
            "NOTIFIER_POLICY": "app.may",
            "NOTIFIER_ORIGINS": "https://app.example.com http://localhost:3000",
            "NOTIFIER_TRUSTED_PROXIES": "2",
            "NOTIFIER_OPEN": "1",
            "NOTIFIER_MAX_PARKED": "5",
            "NOTIFIER_MAX_PARKED_PER_ADDRESS": "6",
            "NOTIFIER_MAX_BODY": "7",
            "NOTIFIER_MAX_MEMORY": "80000000",
            "NOTIFIER_KEEP_ALIVE": "620s",
            "NOTIFIER_RETENTION": "36h",
        }
    )
    assert settings == Settings(
        database_url=URL,
        listen_database_url="postgresql:///other",
        host="0.0.0.0",
        port=80,
        processes=4,
        admin_keys=("a-long-key!", "another-key"),
        public_subscribe=("news", "status/**"),
        public_publish=("drop/*",),
        tokens=TokenSettings(
            secrets=(b"s" * 32, b"t" * 40),
            keys="https://auth.example.com/jwks.json",
            audience="notifier",
            issuer="https://auth.example.com",
            subscribe=("user/{sub}/**", "all"),
            publish=("from/{sub}",),
            lifetime=timedelta(hours=12),
        ),
        policy="app.may",
        origins=frozenset({"https://app.example.com", "http://localhost:3000"}),
        trusted_proxies=2,
        open=True,
        max_parked=5,
        max_parked_per_address=6,
        max_body=7,
        max_memory=80_000_000,
        keep_alive=timedelta(seconds=620),
        retention=timedelta(hours=36),
    )


def test_an_empty_variable_counts_as_unset():
    names = (
        "DATABASE_URL",
        "HOST",
        "PORT",
        "NOTIFIER_ADMIN_KEY",
        "NOTIFIER_PUBLIC_SUBSCRIBE",
        "NOTIFIER_JWT_SECRET",
        "NOTIFIER_POLICY",
        "NOTIFIER_ORIGINS",
        "NOTIFIER_OPEN",
        "NOTIFIER_RETENTION",
    )
    assert Settings.from_env(dict.fromkeys(names, " ")) == Settings.from_env({})


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("PORT", 0, 65535),
        ("WEB_CONCURRENCY", 1, 64),
        ("NOTIFIER_MAX_PARKED", 1, 1_000_000),
        ("NOTIFIER_MAX_PARKED_PER_ADDRESS", 0, 1_000_000),
        ("NOTIFIER_MAX_BODY", 1, 64 * 1024 * 1024),
        ("NOTIFIER_MAX_MEMORY", 32 * 1024 * 1024, 64 * 1024**3),
    ],
)
def test_a_number_is_accepted_only_within_its_bounds(name, low, high):
    for value in (low, high):
        Settings.from_env({name: str(value)})
    for value in (low - 1, high + 1, "many", "1.5", "1e3", "1_0", "\N{ARABIC-INDIC DIGIT THREE}", "1" * 5000):
        with pytest.raises(SettingsError, match=f"^{name} is .*: it must be a number from {low} to {high}"):
            Settings.from_env({name: str(value)})


@pytest.mark.parametrize(
    ("text", "span"), [("1s", timedelta(seconds=1)), ("90m", timedelta(minutes=90)), ("3650d", timedelta(3650))]
)
def test_a_retention_is_a_span(text, span):
    assert Settings.from_env({"NOTIFIER_RETENTION": text}).retention == span


RATES = {
    "NOTIFIER_FAILED_RATE": "failed_rate",
    "NOTIFIER_PUBLISH_RATE": "publish_rate",
    "NOTIFIER_POLL_RATE": "poll_rate",
}


@pytest.mark.parametrize("name", RATES)
@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("100/s", Rate(100, 1)),
        ("30/m", Rate(30, 60)),
        ("1/h", Rate(1, 3600)),
        ("999999/s", Rate(999999, 1)),
        ("0", None),
    ],
)
def test_a_rate_is_a_number_for_a_unit_of_time(name, text, rate):
    assert getattr(Settings.from_env({name: text}), RATES[name]) == rate


@pytest.mark.parametrize("name", RATES)
@pytest.mark.parametrize(
    "text", ["0/s", "1", "1/d", "1/ s", "1.5/s", "-1/s", "01/s", "1000000/s", "1/s2", "off", "٣/s"]
)
def test_any_other_rate_is_refused(name, text):
    with pytest.raises(SettingsError, match=rf"^{name} is .*: it must be a rate such as 100/s, 30/m or 5/h, or 0 for"):
        Settings.from_env({name: text})


@pytest.mark.parametrize("text", ["0s", "7", "7 d", "7D", "1w", "-1d", "1.5d", "3651d", "9999999d", "forever"])
def test_any_other_retention_is_refused(text):
    with pytest.raises(
        SettingsError, match=r"^NOTIFIER_RETENTION is .*: it must be a span such as 12h or 7d, up to 3650d"
    ):
        Settings.from_env({"NOTIFIER_RETENTION": text})


@pytest.mark.parametrize("name", ["AUDIENCE", "ISSUER", "SUBSCRIBE", "PUBLISH"])
def test_settings_for_tokens_without_a_key_for_them_are_refused(name):
    with pytest.raises(SettingsError, match="neither NOTIFIER_JWT_SECRET nor NOTIFIER_JWT_KEYS"):
        Settings.from_env({f"NOTIFIER_JWT_{name}": "x"})


@pytest.mark.parametrize(
    "text", ["keys/jwks.json", "http://127.0.0.1:9000/jwks", "http://localhost/jwks", "https://a.b/c"]
)
def test_keys_are_a_file_or_a_url(text):
    settings = Settings.from_env({"NOTIFIER_JWT_KEYS": text, "NOTIFIER_JWT_ISSUER": "us"})
    assert settings.tokens is not None
    assert settings.tokens.keys == text


@pytest.mark.rule("A-45")
def test_keys_of_a_provider_need_an_audience_or_an_issuer():
    """Firebase, for one, signs with the same keys for all its customers, who choose their users' names."""
    provider = {"NOTIFIER_JWT_KEYS": "https://auth.example.com/jwks.json"}
    with pytest.raises(SettingsError, match="neither NOTIFIER_JWT_AUDIENCE nor NOTIFIER_JWT_ISSUER"):
        Settings.from_env(provider | {"NOTIFIER_JWT_SECRET": "s" * 32})
    for name in ("AUDIENCE", "ISSUER"):
        assert Settings.from_env(provider | {f"NOTIFIER_JWT_{name}": "us"}).tokens
    assert Settings.from_env({"NOTIFIER_JWT_KEYS": "jwks.json"}).tokens  # of a pair of one's own


@pytest.mark.parametrize("origin", ["capacitor://localhost", "chrome-extension://abcdefgh", "http://[::1]:3000", "*"])
def test_an_origin_may_have_any_scheme(origin):
    assert Settings.from_env({"NOTIFIER_ORIGINS": origin}).origins == {origin}


@pytest.mark.parametrize(
    ("name", "text", "because"),
    [
        ("NOTIFIER_OPEN", "true", "it must be 0 or 1"),
        ("NOTIFIER_OPEN", "yes", "it must be 0 or 1"),
        ("NOTIFIER_PUBLIC_SUBSCRIBE", "a,b/", "is not a topic"),
        ("NOTIFIER_PUBLIC_PUBLISH", "a b", "is not a topic"),
        ("NOTIFIER_JWT_SECRET", "s" * 31, "must have at least 32 printable ASCII characters"),
        ("NOTIFIER_JWT_KEYS", "http://auth.example.com/jwks.json", "must be a file or an https URL"),
        ("NOTIFIER_JWT_KEYS", "http://127.0.0.1.example.com/", "must be a file or an https URL"),
        ("NOTIFIER_JWT_KEYS", "https://me:secret@auth.example.com/", "must be a file or an https URL"),
        ("NOTIFIER_JWT_KEYS", "https://", "must be a file or an https URL"),
        ("NOTIFIER_JWT_KEYS", "file:///etc/jwks.json", "must be a file or an https URL"),
        ("NOTIFIER_JWT_SUBSCRIBE", "user/{sub}*", "is not a pattern"),
        ("NOTIFIER_JWT_PUBLISH", "user/{name}", "is not a topic"),
        ("NOTIFIER_POLICY", "may", "it must name a function with its schema"),
        ("NOTIFIER_POLICY", "app.may(); drop", "it must name a function with its schema"),
        ("NOTIFIER_ORIGINS", "app.example.com", "is not an origin"),
        ("NOTIFIER_ORIGINS", "https://app.example.com/", "is not an origin"),
        ("NOTIFIER_ORIGINS", "https://App.example.com", "is not an origin"),
        ("NOTIFIER_ORIGINS", "https://*.example.com", "For all pages, use \\*"),
        ("NOTIFIER_ORIGINS", "null", "is not an origin"),
        ("NOTIFIER_ORIGINS", "https://app.example.com:443", "has the port that browsers leave out"),
        ("NOTIFIER_ORIGINS", "http://localhost:80", "has the port that browsers leave out"),
        ("NOTIFIER_ADMIN_KEY", "short", "must have at least 8 printable ASCII characters; several are separated"),
        ("NOTIFIER_ADMIN_KEY", "long-enough short", "must have at least 8"),
        ("NOTIFIER_ADMIN_KEY", "schl\N{LATIN SMALL LETTER U WITH DIAERESIS}ssel", "must have at least 8"),
        ("DATABASE_URL", "mysql://localhost/x", "must be a URL such as postgres://"),
        ("DATABASE_URL", "localhost", "must be a URL such as postgres://"),
        ("DATABASE_URL", "postgres://[", "It has no host where one must be"),
        ("DATABASE_URL", "postgres://localhost:99999/x", "It has no port"),
        ("LISTEN_DATABASE_URL", "x", "must be a URL such as postgres://"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(name, text, because):
    with pytest.raises(SettingsError, match=because) as refused:
        Settings.from_env({name: text})
    assert str(refused.value).startswith(name)


@pytest.mark.parametrize(
    "env",
    [
        {"NOTIFIER_ADMIN_KEY": "top secret"},
        {"NOTIFIER_JWT_SECRET": "top-secret"},
        {"DATABASE_URL": "mysql://someone:top%20secret@localhost/x"},
        {"LISTEN_DATABASE_URL": "someone:top secret@localhost"},
    ],
)
def test_no_refusal_repeats_a_secret(env):
    with pytest.raises(SettingsError) as refused:
        Settings.from_env(env)
    assert "secret" not in str(refused.value)


def test_settings_in_a_traceback_show_no_secret():
    shown = repr(Settings(database_url=URL, listen_database_url=URL, admin_keys=("top-secret",)))
    assert "secret" not in shown


# Exposure


def test_a_loopback_address_needs_neither_key_nor_database_url():
    for host in ("127.0.0.1", "::1", "localhost", "127.1.2.3"):
        Settings(host=host).check_exposure()


def test_another_address_needs_a_key_and_a_database_of_its_own():
    exposed = {"host": "0.0.0.0"}
    with pytest.raises(SettingsError, match=r"no NOTIFIER_ADMIN_KEY.*or set NOTIFIER_OPEN=1"):
        Settings(**exposed).check_exposure()
    with pytest.raises(SettingsError, match="no NOTIFIER_ADMIN_KEY"):
        Settings(**exposed, database_url=URL).check_exposure()
    with pytest.raises(SettingsError, match=r"no DATABASE_URL.*or NOTIFIER_OPEN=1"):
        Settings(**exposed, admin_keys=("long-enough",)).check_exposure()
    Settings(**exposed, admin_keys=("long-enough",), database_url=URL).check_exposure()
    Settings(**exposed, open=True).check_exposure()


@pytest.mark.parametrize(
    "access", [{"public_subscribe": ("news",)}, {"public_publish": ("drop",)}, {"tokens": TokenSettings(keys="f")}]
)
def test_any_way_in_that_was_set_up_closes_the_others(access):
    settings = Settings(host="::", database_url=URL, **access)
    assert not settings.anyone
    settings.check_exposure()


def test_anyone_may_do_everything_without_a_key_or_in_open_mode():
    assert Settings().anyone
    assert Settings(open=True, admin_keys=("long-enough",)).anyone
    assert not Settings(admin_keys=("long-enough",)).anyone


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST", "localhost.", "a.localhost", "127.0.0.1", "127.9.9.9", "::1", "[::1]"]
)
def test_names_and_addresses_of_this_machine_are_loopback(host):
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "0.0.0.0",
        "::",
        "10.0.0.1",
        "example.com",
        "localhost.example.com",
        "127.0.0.1.example.com",
        "notlocalhost",
        "127.1",
        "*",
    ],
)
def test_anything_else_is_not(host):
    assert not is_loopback(host)
