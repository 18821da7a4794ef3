"""Database URLs as libpq, other drivers and providers write them."""

from urllib.parse import parse_qs, urlsplit

import pytest

from notifier.core.database_urls import InvalidDatabaseURL, parse

HOSTS = [
    ("postgres://me:pw@host:5433/db", [("host", 5433)]),
    ("postgresql://host", [("host", None)]),
    ("postgresql:///db", [(None, None)]),
    ("postgres://me@[::1]:5433/db", [("::1", 5433)]),
    ("postgres://me@[::1]/db", [("::1", None)]),
    ("postgres://one:5433,two,[::1]:5434/db", [("one", 5433), ("two", None), ("::1", 5434)]),
    ("postgres:///db?host=one,two&port=5433,5434", [("one", 5433), ("two", 5434)]),
    ("postgres:///db?host=one,two&port=5433", [("one", 5433), ("two", 5433)]),
    ("postgres:///db?host=::1&port=5433", [("::1", 5433)]),
    ("postgres:///db?hostaddr=127.0.0.1", [("127.0.0.1", None)]),
    ("postgresql:///db?host=%2Fvar%2Frun%2Fpostgresql&port=5433", [("/var/run/postgresql", 5433)]),
    ("postgresql:///db?host=/var/run/postgresql", [("/var/run/postgresql", None)]),
    ("postgresql://me:pw@%2Fvar%2Frun%2Fpostgresql/db", [("/var/run/postgresql", None)]),
    ("postgresql://me:pw@localhost/db?host=/cloudsql/project:region:name", [("/cloudsql/project:region:name", None)]),
]


@pytest.mark.parametrize(("url", "hosts"), HOSTS)
def test_hosts_are_found_wherever_they_are_written(url, hosts):
    assert list(parse(url).hosts) == hosts


@pytest.mark.parametrize(
    ("url", "login"),
    [
        ("postgres://me:p%40ss%2Fw%3Frd@host/db", ("me", "p@ss/w?rd", "db")),
        ("postgres://me:p#ss?w:rd[1]@host/db", ("me", "p#ss?w:rd[1]", "db")),  # as libpq, which needs no escapes there
        ("postgres://me%2B@host/a%20b", ("me+", "", "a b")),
        ("postgres://host/db?user=me&password=p%40ss", ("me", "p@ss", "db")),
        ("postgres:///?dbname=db&user=me", ("me", "", "db")),
    ],
)
def test_who_logs_in_to_what_is_kept_whatever_characters_it_has(url, login):
    parsed = parse(url)
    assert (parsed.user, parsed.password, parsed.database) == login
    # As asyncpg reads it, by the rules of URLs.
    dsn = urlsplit(parsed.dsn)
    assert (dsn.fragment, dsn.netloc.count("@"), dsn.path.count("/")) == ("", 1, 1)
    assert parsed.password not in repr(parsed) or not parsed.password


@pytest.mark.parametrize(
    ("given", "mode"),
    [
        *((f"ssl={word}", "require") for word in ("true", "1", "on", "require", "TRUE")),
        *((f"ssl={word}", "disable") for word in ("false", "0")),
        ("sslmode=no-verify", "require"),
        *((f"sslmode={mode}", mode) for mode in ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")),
    ],
)
def test_how_a_url_asks_for_encryption_is_translated(given, mode):
    dsn = parse(f"postgres://me:pw@host:5433/db?{given}&connect_timeout=5").dsn
    assert parse_qs(urlsplit(dsn).query) == {"sslmode": [mode]}


@pytest.mark.parametrize(
    ("options", "session"),
    [
        ("host/db", "any"),
        ("host/db?target_session_attrs=read-write", "read-write"),
        ("one,two/db", "primary"),
        ("one,two/db?target_session_attrs=any", "primary"),
    ],
)
def test_of_several_hosts_one_that_can_write_is_wanted(options, session):
    assert parse(f"postgres://{options}").session == session


@pytest.mark.parametrize(
    ("option", "seconds"),
    [("", None), ("connect_timeout=10", 10), ("connect_timeout=0", None), ("connect_timeout=-1", None)],
)
def test_how_long_connecting_may_take_is_an_option(option, seconds):
    assert parse(f"postgres://host/db?{option}").connect_timeout_s == seconds


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://host/db", "It must be a URL such as postgres://"),
        ("host:5432", "It must be a URL such as postgres://"),
        ("postgres://me:sec@ret@host:5432/db", "write @ as %40"),
        ("postgres://me:sec/ret@host:5432/db", "write @ as %40, / as %2F"),
        ("postgres://me:se@cret/pw@host:5432/db", "write @ as %40, / as %2F"),
        ("postgres://me/sec:ret@host/db", "write @ as %40, / as %2F"),
        ("postgres://me:secret%@host/db", "% as %25"),
        ("postgres://me:secret%zz@host/db", "% as %25"),
        ("postgres://[::1/db", "It has no host"),
        ("postgres://host:0/db", r"no port \(1 to 65535\)"),
        ("postgres://host:65536/db", r"no port \(1 to 65535\)"),
        ("postgres:///db?host=one,two&port=1,2,3", "It has 2 hosts and 3 ports"),
        (
            "postgres://host/db?sslmode=requre",
            "sslmode is 'requre': it must be disable, allow, prefer, require, verify-ca",
        ),
        ("postgres://host/db?sslmode", "After the ?"),
        ("postgres://host/db?sslnegotiation=fast", "sslnegotiation is 'fast'"),
        ("postgres://host/db?ssl_min_protocol_version=1.2", "ssl_min_protocol_version is '1.2'"),
        ("postgres://host/db?sslrootcert=system&sslmode=require", "sslrootcert=system goes with sslmode=verify-full"),
        ("postgres://host/db?target_session_attrs=standby", "notifier has to write"),
        ("postgres://host/db?target_session_attrs=writable", "target_session_attrs is 'writable'"),
        ("postgres://host/db?connect_timeout=soon", "connect_timeout is 'soon': it must be whole seconds"),
    ],
)
def test_what_can_never_work_is_refused_with_a_sentence_of_its_own_and_no_secret(url, said):
    with pytest.raises(InvalidDatabaseURL, match=said) as refused:
        parse(url)
    assert "sec" not in str(refused.value).replace("seconds", "")
