"""The ways to a database that its URL describes: options, hosts, certificates."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import asyncpg
import pytest
import pytest_asyncio
from conftest import DEADLINE_S, Server, Start, admin, free_port, run
from support.servers import Postgres

from notifier.core.database_urls import InvalidDatabaseURL
from notifier.postgres import connecting
from notifier.postgres.connecting import Connection, Route
from notifier.postgres.database import Database
from notifier.postgres.failures import Refused

FOREIGN = [
    "channel_binding=require",  # Neon
    "connect_timeout=10",
    "application_name=web&fallback_application_name=web",
    "pgbouncer=true&connection_limit=1&pool_timeout=10",  # Prisma
    "schema=public&sslaccept=strict",
    "workaround=supabase-pooler.vercel",
    "supa=base-pooler.x",
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


async def connect(url: str) -> Connection:
    return await Route(url).connect({})


async def shown(url: str, name: str) -> str:
    connection = await connect(url)
    try:
        return await connection.fetchval(f"show {name}")
    finally:
        await connection.close()


@pytest.mark.parametrize("foreign", FOREIGN)
async def test_parameters_of_other_drivers_and_providers_do_not_prevent_connecting(
    url_of_ours: str, foreign: str
) -> None:
    connection = await connect(f"{url_of_ours}?{foreign}")
    try:
        assert await connection.fetchval("select current_database()") == urlsplit(url_of_ours).path[1:]
    finally:
        await connection.close()


async def test_settings_of_the_session_are_options_of_the_url(url_of_ours: str) -> None:
    given = "options=-c%20work_mem=7MB%20--geqo_threshold=9"
    assert await shown(f"{url_of_ours}?{given}", "work_mem") == "7MB"
    assert await shown(f"{url_of_ours}?{given}", "geqo_threshold") == "9"
    with pytest.raises(Refused, match="unrecognized configuration parameter"):
        await connect(f"{url_of_ours}?options=-c%20no_such_setting=1")


@contextlib.contextmanager
def hole() -> Iterator[int]:
    """The port of a host that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def hosts(url: str, *ports: int) -> str:
    """`url` with hosts before its own."""
    parts = urlsplit(url)
    login, _, own = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{login}@{','.join(f'127.0.0.1:{port}' for port in ports)},{own}").geturl()


async def test_a_frozen_host_takes_no_more_than_its_time_and_the_next_one_serves(
    url_of_ours: str, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connecting, "CONNECT_TIMEOUT_S", 0.3)
    tried: list[int | None] = []
    real = asyncpg.connect

    async def counted(*args: object, port: int | None, **kwargs: object) -> Connection:
        tried.append(port)
        return await real(*args, port=port, **kwargs)

    monkeypatch.setattr(asyncpg, "connect", counted)
    with hole() as frozen:
        closed = free_port()
        app = await start(hosts(url_of_ours, closed, frozen))
        await app.publish("orders", "1")
        assert (await app.poll("orders", after="earliest"))["messages"]
        # The host that was good is the first from then on.
        assert (tried.count(closed), tried.count(frozen)) == (1, 1)


@pytest.fixture
def named(url_of_ours: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[str]]]:
    """The URL by a name whose first address is frozen, and the addresses that are tried."""
    parts = urlsplit(url_of_ours)
    tried: list[str] = []
    addresses, through = connecting._addresses, connecting._Way.create_connection

    async def two(host: str | None, timeout_s: float) -> list[str | None]:
        return ["127.0.0.2", "127.0.0.1"] if host == "db.invalid" else await addresses(host, timeout_s)

    async def counted(way: connecting._Way, *args: Any, **options: Any) -> Any:
        tried.append(way._address)
        return await through(way, *args, **options)

    monkeypatch.setattr(connecting, "_addresses", two)
    monkeypatch.setattr(connecting._Way, "create_connection", counted)
    monkeypatch.setattr(connecting, "CONNECT_TIMEOUT_S", 0.5)
    with socket.create_server(("127.0.0.2", parts.port)):
        yield parts._replace(netloc=parts.netloc.replace("127.0.0.1", "db.invalid")).geturl(), tried


async def test_a_frozen_address_of_a_name_takes_no_more_than_its_time_and_the_next_one_serves(
    named: tuple[str, list[str]], start: Start
) -> None:
    url, tried = named
    app = await start(url)
    await app.publish("orders", "1")
    assert (await app.poll("orders", after="earliest"))["messages"]
    # The address that was good is the first from then on.
    assert tried[:2] == ["127.0.0.2", "127.0.0.1"]
    assert set(tried[2:]) == {"127.0.0.1"}


async def test_a_server_that_is_left_is_told_at_its_own_address(
    named: tuple[str, list[str]], server_of_ours: Postgres
) -> None:
    """At another address of the name nobody knows the query."""
    running = "select count(*) from pg_stat_activity where query = 'select pg_sleep(600)' and state = 'active'"
    connection = await connect(named[0])
    watch = await asyncpg.connect(server_of_ours.url)
    with pytest.raises(TimeoutError):
        await connection.execute("select pg_sleep(600)", timeout=0.3)
    connection.terminate()
    try:
        async with asyncio.timeout(DEADLINE_S):
            while await watch.fetchval(running):
                await asyncio.sleep(0.01)
    finally:
        await watch.execute("select pg_terminate_backend(pid) from pg_stat_activity where query like '%pg_sleep(600)'")
        await watch.close()


async def test_the_addresses_of_a_name_are_looked_up_and_no_others() -> None:
    assert "127.0.0.1" in await connecting._addresses("localhost", 5)
    for host in (None, "/run/postgresql", "127.0.0.1", "::1", "fe80::1%eth0"):
        assert await connecting._addresses(host, 5) == [None]
    with pytest.raises(InvalidDatabaseURL, match="no name of a host"):
        await connecting._addresses("a" * 64 + ".invalid", 5)


async def test_how_long_a_host_may_take_is_what_the_url_says(url_of_ours: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connecting, "CONNECT_TIMEOUT_S", 600)
    with hole() as frozen:
        own = f"postgres://127.0.0.1:{frozen}/db?connect_timeout=1"
        with pytest.raises(TimeoutError, match=r"no answer from 127\.0\.0\.1 within 1 s"):
            await connect(own)


async def test_of_several_hosts_the_primary_is_taken(server_of_ours: Postgres, folder: Path) -> None:
    """Whatever the order: nothing can be published through a standby."""
    standby = Postgres(folder / "hosts")
    await standby.create()
    await standby.start()
    try:
        # One login for all hosts of a URL.
        await admin(standby.url, f"alter role postgres password '{urlsplit(server_of_ours.url).password}'")
        await standby.stop()
        (standby.data / "standby.signal").touch()
        await standby.start()
        port = urlsplit(standby.url).port
        assert port
        for session in ("", "?target_session_attrs=read-write"):
            connection = await connect(hosts(server_of_ours.url, port) + session)
            assert not await connection.fetchval("select pg_is_in_recovery()")
            await connection.close()
    finally:
        await standby.close()


async def test_a_home_that_cannot_be_looked_into_is_no_obstacle(
    url_of_ours: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As under supervisors that change the user and not the environment. (Root may look into any that has a name.)"""
    monkeypatch.setenv("HOME", f"/{'x' * 300}")
    for mode in ("prefer", "allow", "disable"):
        await (await connect(f"{url_of_ours}?sslmode={mode}")).close()


async def test_without_a_host_the_socket_is_found(url_of_ours: str, folder: Path) -> None:
    """A folder may be written as the host, or as an option where slashes need no escapes."""
    local = Postgres(folder / "sockets", {"unix_socket_directories": str(folder), "listen_addresses": ""})
    await local.create()
    folder.chmod(0o777)  # the server's user makes its socket there
    await local.start()
    try:
        parts = urlsplit(local.url)
        login, port = parts.netloc.rpartition("@")[0], parts.port
        for url in (
            f"postgres://{login}@/postgres?host={folder}&port={port}",
            f"postgres://{login}@{quote(str(folder), safe='')}:{port}/postgres?sslmode=require",
            f"postgres://{login}@localhost/postgres?host={folder}&port={port}",
        ):
            await (await connect(url)).close()
    finally:
        await local.close()
        folder.chmod(0o711)


async def test_a_password_never_shows(url_of_ours: str) -> None:
    probed = await Database.probe(url_of_ours)
    password = urlsplit(url_of_ours).password
    assert password
    assert password not in repr(probed)
    with pytest.raises(Refused) as refused:
        await Database.probe(url_of_ours.replace(password, "sesame"))
    assert "sesame" not in str(refused.value)


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        (lambda url: url.replace("postgres:", "postgres:wrong-"), 3, "refuses the connection: InvalidPasswordError"),
        (lambda url: url.replace("/test_", "/no_such_"), 3, "refuses the connection: InvalidCatalogNameError"),
        (lambda url: url.replace("postgres:", "postgres:a@b/"), 2, "DATABASE_URL: The name of the database has an @"),
        (lambda url: f"{url}?sslmode=nonsense", 2, "DATABASE_URL: sslmode is 'nonsense'"),
        (
            lambda url: f"{url}?sslmode=verify-full&sslrootcert=/no/root.crt",
            2,
            "sslrootcert /no/root.crt cannot be read",
        ),
        (lambda url: f"{url}?sslmode=verify-full&sslrootcert=/proc/version", 2, "holds nothing in PEM format"),
        (lambda url: f"{url}?sslmode=require", 3, "127.0.0.1 does not encrypt, and the database URL asks for it"),
        (lambda url: f"{url}?sslmode=require&sslcert=/no/crt", 2, "sslcert /no/crt with its key cannot be read"),
    ],
    ids=[
        "password",
        "database",
        "escapes",
        "sslmode",
        "no root certificate",
        "no certificate",
        "no encryption",
        "no client certificate",
    ],
)
def test_a_url_that_can_never_work_is_reported_at_once_in_one_sentence(
    url_of_ours: str, tmp_path: Path, change: Callable[[str], str], status: int, said: str
) -> None:
    server = Server(change(url_of_ours), tmp_path / "serve.log")
    with pytest.raises(AssertionError):
        server.start()
    assert server.process
    assert server.process.wait() == status
    [line] = server.log.read_text().splitlines()
    assert said in line


async def test_without_a_root_certificate_the_sentence_says_where_one_is_looked_for(
    url_of_ours: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(
        InvalidDatabaseURL, match=r"sslmode=verify-ca needs .*postgresql/root.crt cannot be read: No such"
    ):
        await connect(f"{url_of_ours}?sslmode=verify-ca")


OPENSSL = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-subj", "/CN=localhost", "-days", "2", "-nodes"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def encrypted(folder: Path) -> AsyncIterator[Postgres]:
    """Debian's PostgreSQL, which has TLS, with a self-signed certificate."""
    binaries = max(Path("/usr/lib/postgresql").glob("*/bin"))
    server = Postgres(folder / "encrypted", {"ssl": "on"}, binaries)
    await server.create()
    files = ["-keyout", str(server.data / "server.key"), "-out", str(server.data / "server.crt")]
    made = server.account.run([*OPENSSL, *files])
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
    await expect(encrypted, given, is_encrypted)


async def expect(server: Postgres, given: str, is_encrypted: bool) -> None:
    connection = await connect(f"{server.url}?{given}")
    try:
        found = await connection.fetchval("select ssl from pg_stat_ssl where pid = pg_backend_pid()")
        assert found is is_encrypted
    finally:
        await connection.close()


@pytest.mark.all
async def test_a_home_that_cannot_be_looked_into_changes_no_encryption(
    encrypted: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", f"/{'x' * 300}")
    for given, is_encrypted in (("", True), ("sslmode=allow", False), ("sslmode=require", True)):
        await expect(encrypted, given, is_encrypted)


@pytest.mark.all
async def test_a_certificate_is_verified_where_the_url_asks_for_it(
    encrypted: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_bytes((encrypted.data / "server.crt").read_bytes())
    await expect(encrypted, f"sslmode=verify-ca&sslrootcert={ca}", True)
    with pytest.raises(Refused, match="is not trusted: "):  # not for 127.0.0.1
        await connect(f"{encrypted.url}?sslmode=verify-full&sslrootcert={ca}")
    # As with libpq, `require` verifies too where there is something to verify with.
    other = tmp_path / "other.pem"
    made = run(*OPENSSL, "-keyout", str(tmp_path / "other.key"), "-out", str(other))
    assert made.returncode == 0, made.stderr
    with pytest.raises(Refused, match="is not trusted: "):
        await connect(f"{encrypted.url}?sslmode=require&sslrootcert={other}")
    await expect(encrypted, f"sslmode=require&sslrootcert={tmp_path / 'none'}", True)


@pytest.mark.all
async def test_the_authorities_of_the_system_can_be_trusted(
    encrypted: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = encrypted.url.replace("127.0.0.1", "localhost")
    with pytest.raises(Refused, match="is not trusted: "):
        await connect(f"{url}?sslrootcert=system")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    (tmp_path / "ca.pem").write_bytes((encrypted.data / "server.crt").read_bytes())
    await (await connect(f"{url}?sslrootcert=system")).close()
    with pytest.raises(Refused, match="is not trusted: "):  # verify-full: not for 127.0.0.1
        await connect(f"{encrypted.url}?sslrootcert=system")
