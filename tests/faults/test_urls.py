"""Database URLs as providers and other drivers write them."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest
import pytest_asyncio
from conftest import Server
from support.servers import Postgres

from notifier.postgres.database import Database, describe, normalise

FOREIGN = [
    "channel_binding=require",  # Neon
    "connect_timeout=10",
    "pgbouncer=true&connection_limit=1&pool_timeout=10",  # Prisma
    "schema=public&sslaccept=strict",
    "workaround=supabase-pooler.vercel",
    "supa=base-pooler.x",
    "options=endpoint%3Dep-cool-name",
    "gssencmode=disable",
    "keepalives=1&keepalives_idle=30&keepalives_interval=5&keepalives_count=3&tcp_user_timeout=9000",
    "client_encoding=utf8&fallback_application_name=web&application_name=web",
    "sslsni=1&sslcompression=0&sslcertmode=allow&require_auth=scram-sha-256&load_balance_hosts=random",
    "uselibpqcompat=true",  # node-postgres
    "prepareThreshold=0&currentSchema=public&reWriteBatchedInserts=true",  # JDBC
    "pool_max_conns=10&default_query_exec_mode=exec",  # pgx
    "prepared_statement_cache_size=0&statement_cache_size=0",  # SQLAlchemy, asyncpg
    "an_option_of_next_year=1",
]


def options(url: str) -> dict[str, list[str]]:
    return parse_qs(urlsplit(url).query, keep_blank_values=True)


@pytest.mark.parametrize("foreign", FOREIGN)
async def test_parameters_of_other_drivers_and_providers_do_not_prevent_connecting(
    url_of_ours: str, foreign: str
) -> None:
    connection = await asyncpg.connect(normalise(f"{url_of_ours}?{foreign}"))
    try:
        assert await connection.fetchval("select current_database()") == urlsplit(url_of_ours).path[1:]
    finally:
        await connection.close()


@pytest.mark.parametrize(
    ("given", "mode"),
    [
        ("ssl=true", "require"),
        ("ssl=1", "require"),
        ("ssl=on", "require"),
        ("ssl=require", "require"),
        ("ssl=TRUE", "require"),
        ("ssl=false", "disable"),
        ("ssl=0", "disable"),
        ("sslmode=no-verify", "require"),
        ("sslmode=require", "require"),
        ("sslmode=verify-full", "verify-full"),
        ("sslmode=disable", "disable"),
        ("sslmode=prefer", "prefer"),
    ],
)
def test_how_a_url_asks_for_encryption_is_translated(given: str, mode: str) -> None:
    assert options(normalise(f"postgres://me:pw@host:5433/db?{given}&connect_timeout=5")) == {"sslmode": [mode]}


@pytest.mark.parametrize(
    "url",
    [
        "postgres://me:p%40ss%2Fw%3Frd@host:5433/db",
        "postgresql://me@host/db",
        "postgresql:///db?host=%2Fvar%2Frun%2Fpostgresql&port=5433",
        "postgres://me:pw@one:5432,two:5433/db?target_session_attrs=read-write",
        "postgres://me:pw@[::1]:5432/db",
        "postgres://host/db?sslrootcert=%2Fetc%2Fca%20s%2Fca.pem&sslmode=verify-full",
    ],
)
def test_parameters_that_asyncpg_understands_stay_as_they_are(url: str) -> None:
    before, after = urlsplit(url), urlsplit(normalise(url))
    assert (before.scheme, before.netloc, before.path) == (after.scheme, after.netloc, after.path)
    assert options(normalise(url)) == options(url)


async def test_a_password_never_shows(url_of_ours: str) -> None:
    probed = await Database.probe(url_of_ours)
    password = urlsplit(url_of_ours).password
    assert password
    assert password not in repr(probed)
    with pytest.raises(asyncpg.InvalidPasswordError) as refused:
        await Database.probe(url_of_ours.replace(password, "sesame"))
    assert "sesame" not in describe(refused.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda url: url.replace("postgres:", "postgres:wrong-"), "refuses the connection: InvalidPasswordError"),
        (lambda url: url.replace("/test_", "/no_such_"), "refuses the connection: InvalidCatalogNameError"),
        (lambda url: f"{url}?sslmode=nonsense", "The database URL is not usable"),
    ],
    ids=["password", "database", "sslmode"],
)
def test_a_url_that_can_never_work_is_reported_at_once_in_one_sentence(
    url_of_ours: str, tmp_path: Path, change: Callable[[str], str], said: str
) -> None:
    server = Server(change(url_of_ours), tmp_path / "serve.log")
    with pytest.raises(AssertionError):
        server.start()
    assert server.process
    assert server.process.wait() == 3
    [line] = server.log.read_text().splitlines()
    assert said in line


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def encrypted(folder: Path) -> AsyncIterator[Postgres]:
    """Debian's PostgreSQL, which has TLS, with a self-signed certificate."""
    binaries = max(Path("/usr/lib/postgresql").glob("*/bin"))
    server = Postgres(folder / "encrypted", {"ssl": "on"}, binaries)
    await server.create()
    subject = ["-subj", "/CN=localhost", "-days", "2", "-nodes"]
    files = ["-keyout", str(server.data / "server.key"), "-out", str(server.data / "server.crt")]
    made = server.account.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", *subject, *files])
    assert made.returncode == 0, made.stderr
    (server.data / "server.key").chmod(0o600)
    await server.start()
    yield server
    await server.close()


@pytest.mark.all
@pytest.mark.parametrize(
    ("given", "is_encrypted"),
    [
        ("", True),
        ("ssl=true", True),
        ("ssl=false", False),
        ("sslmode=no-verify", True),
        ("sslmode=require&channel_binding=require", True),
        ("sslmode=disable", False),
    ],
)
async def test_the_connection_is_encrypted_as_the_url_asks(encrypted: Postgres, given: str, is_encrypted: bool) -> None:
    connection = await asyncpg.connect(normalise(f"{encrypted.url}?{given}"))
    try:
        found = await connection.fetchval("select ssl from pg_stat_ssl where pid = pg_backend_pid()")
        assert found is is_encrypted
    finally:
        await connection.close()


@pytest.mark.all
async def test_a_certificate_is_verified_where_the_url_asks_for_it(encrypted: Postgres, tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_bytes((encrypted.data / "server.crt").read_bytes())
    trusting = await asyncpg.connect(normalise(f"{encrypted.url}?sslmode=verify-ca&sslrootcert={ca}"))
    await trusting.close()
    with pytest.raises(OSError):
        await asyncpg.connect(normalise(f"{encrypted.url}?sslmode=verify-full&sslrootcert={ca}"))  # not for 127.0.0.1
