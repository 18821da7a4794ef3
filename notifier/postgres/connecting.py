"""How a connection is made: to the first host of the URL that will do, encrypted as the URL asks.

asyncpg has one time-out for all hosts of a URL and all their addresses, so a frozen first one would hide the others. It
also fails where it may not look into the home of the user, and knows no certificates of the system.
"""

# ruff: noqa: SLF001  # what asyncpg has no public way to

import asyncio
import getpass
import ipaddress
import os
import random
import socket
import ssl
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias, cast

import asyncpg
from asyncpg import connect_utils

from notifier.core.database_urls import DatabaseURL, InvalidDatabaseURL, parse
from notifier.postgres.failures import AWAY, BUSY, Refused, describe

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

# For one host, unless the URL has a connect_timeout.
CONNECT_TIMEOUT_S = 3.0

# A frozen server takes no more of our time than this once we have left it.
CANCEL_S = 1.0

# What asyncpg reads in ~/.postgresql, and may find there but may not read.
_PERSONAL = ("root.crt", "root.crl", "postgresql.crt", "postgresql.key")


class _Leaving(asyncpg.Connection):
    """A connection that is left at once, and whose server is told to stop what it is doing for it.

    asyncpg asks for that as well when a call has timed out, but `terminate` would cut that short. And a commit that
    waits for a synchronous standby does not notice that its client is gone: one by one they would use up all
    connections.
    """

    way: "_Way"  # a server is told at the address where it was found

    def terminate(self) -> None:
        this: Any = self
        if this._cancellations and this._protocol:
            cancel = connect_utils._cancel(  # type: ignore[attr-defined]
                loop=getattr(this, "way", this._loop),
                addr=this._addr,
                params=this._params,
                backend_pid=this._protocol.backend_pid,
                backend_secret=this._protocol.backend_secret,
            )
            task = this._loop.create_task(asyncio.wait_for(cancel, CANCEL_S))
            _CANCELS.add(task)
            task.add_done_callback(_cancelled)
        super().terminate()


class _Way:
    """The event loop, for one connection to one address of a host with several. asyncpg gives the loop the name of the
    host, which it needs for certificates and passwords, and the loop would wait for the first address for ever."""

    def __init__(self, loop: asyncio.AbstractEventLoop, address: str | None) -> None:
        self.loop = loop
        self._address = address  # None: whatever the host is

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self.loop, name)

    async def create_connection(self, protocol: Any, host: str, *more: Any, **options: Any) -> Any:  # noqa: ANN401
        if options.get("ssl"):
            options.setdefault("server_hostname", host)
        return await self.loop.create_connection(protocol, self._address or host, *more, **options)


_CANCELS: set["asyncio.Task[None]"] = set()


def _cancelled(task: "asyncio.Task[None]") -> None:
    _CANCELS.discard(task)
    if not task.cancelled():
        task.exception()  # retrieved: the server may be gone


class Route:
    """The way to a database. Of several hosts, and of several addresses of a host, the one that was good last is tried
    first: a frozen one before it would cost each new connection its time-out."""

    def __init__(self, url: str) -> None:
        self._text = url
        self._best: tuple[str | None, int | None, str | None] | None = None

    @cached_property
    def url(self) -> DatabaseURL:
        return parse(self._text)

    async def connect(self, settings: Mapping[str, str], **options: Any) -> Connection:  # noqa: ANN401
        """A connection with these settings of its session, and `options` of asyncpg.

        What libpq takes for a reason to try the next host is one here too: no connection, no answer, a server that
        starts or stops, or one that cannot write. Raises what the last host did: AWAY, BUSY.
        Refused. InvalidDatabaseURL.
        """
        if text := self.url.options.get("options"):
            settings = {**settings, "options": text}
        self._check_user()
        failure: Exception | None = None
        timeout_s = self.url.connect_timeout_s or CONNECT_TIMEOUT_S
        for host, port, address, session in await self._places(timeout_s):
            way = _Way(asyncio.get_running_loop(), address)
            for encryption in [False] if host and host.startswith("/") else encryptions(self.url):
                try:
                    connection: Connection = await asyncpg.connect(
                        self.url.dsn,
                        host=host,
                        port=port,
                        ssl=encryption,
                        timeout=timeout_s,
                        loop=cast("asyncio.AbstractEventLoop", way),
                        target_session_attrs=connect_utils.SessionAttribute(session),
                        server_settings=dict(settings),
                        connection_class=_Leaving,
                        **options,
                    )
                except TimeoutError:
                    failure = TimeoutError(f"no answer from {host or 'the default host'} within {timeout_s:.0f} s")
                    break  # nor would there be one without encryption
                except asyncpg.ClientConfigurationError as error:
                    raise InvalidDatabaseURL(f"{str(error).partition(chr(10))[0].rstrip('.')}.") from error
                except ssl.SSLCertVerificationError as error:
                    failure = Refused(
                        f"The certificate of {host} is not trusted: {error.verify_message}. "
                        "Name the file of its authority with sslrootcert=."
                    )
                except (*AWAY, asyncpg.CannotConnectNowError) as error:
                    failure = error
                    if "rejected SSL upgrade" in str(error):  # asyncpg has no other word for it
                        failure = Refused(f"{host} does not encrypt, and the database URL asks for it by sslmode.")
                except BUSY:
                    raise
                except asyncpg.PostgresError as error:
                    raise Refused(f"The database refuses the connection: {describe(error)}.") from error
                else:
                    self._best = (host, port, address)
                    connection.way, connection._loop = way, way.loop  # type: ignore[attr-defined]
                    return connection
        assert failure
        raise failure

    def _check_user(self) -> None:
        """As in containers that run under any uid: asyncpg would look for the name of the one who runs this."""
        if not (self.url.user or self.url.options.get("service") or os.environ.get("PGUSER")):
            try:
                getpass.getuser()
            except (KeyError, OSError) as error:
                raise InvalidDatabaseURL("It names no user, and the one who runs this has no name.") from error

    async def _places(self, timeout_s: float) -> list[tuple[str | None, int | None, str | None, str]]:
        """Host, port and address, in the order in which they are tried, and what each must be. AWAY where the name of
        the last host leads nowhere, and no other does."""
        hosts = list(self.url.hosts)
        if self.url.options.get("load_balance_hosts") == "random":
            random.shuffle(hosts)
        places = []
        failure: Exception | None = None
        for host, port in hosts:
            try:
                addresses = await _addresses(host, timeout_s)
            except OSError as error:
                failure = error
                continue
            # Those of one name are often a primary and its standbys.
            session = "primary" if len(addresses) > 1 and self.url.session == "any" else self.url.session
            places += [(host, port, address, session) for address in addresses]
        if failure and not places:
            raise failure
        return sorted(places, key=lambda place: place[:3] != self._best)


async def _addresses(host: str | None, timeout_s: float) -> list[str | None]:
    """Those of a name; [None] for all that needs no look-up."""
    if host is None or host.startswith("/") or _is_address(host):
        return [None]
    try:
        async with asyncio.timeout(timeout_s):
            found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except TimeoutError:
        raise TimeoutError(f"no address of {host} within {timeout_s:.0f} s") from None
    except UnicodeError as error:
        raise InvalidDatabaseURL("A host in it is no name of a host.") from error
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def encryptions(url: DatabaseURL) -> list[ssl.SSLContext | bool | None]:
    """What to give asyncpg as `ssl`, one after the other until a connection is made. None: as the DSN has it."""
    mode = url.options.get("sslmode") or os.environ.get("PGSSLMODE") or "prefer"
    if _root(url) == "system":
        mode = "verify-full"
    if mode in {"require", "verify-ca", "verify-full"}:
        return [_context(url, mode)]
    if mode == "disable" or all(_readable(_personal(name)) for name in _PERSONAL):
        return [None]
    context = _context(url, "prefer")
    return [False, context] if mode == "allow" else [context, False]


def _root(url: DatabaseURL) -> str | None:
    return url.options.get("sslrootcert") or os.environ.get("PGSSLROOTCERT")


def _context(url: DatabaseURL, mode: str) -> ssl.SSLContext:
    """As libpq does it: with `require`, certificates are verified if there is a root certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = mode == "verify-full"
    context.minimum_version = _version(url, "ssl_min_protocol_version") or ssl.TLSVersion.TLSv1_2
    context.maximum_version = _version(url, "ssl_max_protocol_version") or ssl.TLSVersion.MAXIMUM_SUPPORTED
    context.set_alpn_protocols(["postgresql"])
    if mode == "prefer" or not _load_roots(context, url, mode):
        context.verify_mode = ssl.CERT_NONE
    else:
        revoked = url.options.get("sslcrl") or _if_readable("root.crl")
        if revoked:
            _load(lambda: context.load_verify_locations(revoked), f"sslcrl {revoked}")
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
    if certificate := url.options.get("sslcert") or _if_readable("postgresql.crt"):
        key = url.options.get("sslkey") or _if_readable("postgresql.key")
        password = url.options.get("sslpassword", "")
        _load(
            lambda: context.load_cert_chain(certificate, key, lambda: password), f"sslcert {certificate} with its key"
        )
    return context


def _load_roots(context: ssl.SSLContext, url: DatabaseURL, mode: str) -> bool:
    """False where there are none and none are needed."""
    named = _root(url)
    if named == "system":
        context.load_default_certs()
        return True
    path = Path(named) if named else _personal("root.crt")
    if mode == "require" and not (_exists(path) if named else _readable(path, missing=False)):
        return False
    needs = "" if named else f"sslmode={mode} needs the certificate of the authority that has signed the server's. "
    helps = " Name a file with sslrootcert=, or trust the authorities of the system: sslrootcert=system."
    _load(lambda: context.load_verify_locations(path), f"sslrootcert {path}", needs, helps)
    return True


def _load(load: Any, what: str, needs: str = "", helps: str = "") -> None:  # noqa: ANN401
    try:
        load()
    except ssl.SSLError as error:
        raise InvalidDatabaseURL(f"{needs}{what} holds nothing in PEM format that fits.{helps}") from error
    except OSError as error:
        raise InvalidDatabaseURL(f"{needs}{what} cannot be read: {error.strerror}.{helps}") from error


def _version(url: DatabaseURL, option: str) -> ssl.TLSVersion | None:
    text = url.options.get(option)
    return ssl.TLSVersion[text.replace(".", "_")] if text else None


def _personal(name: str) -> Path:
    return Path(os.path.expanduser("~")) / ".postgresql" / name  # noqa: PTH111  # Path.home() fails without a home


def _if_readable(name: str) -> str | None:
    path = _personal(name)
    return str(path) if _readable(path, missing=False) else None


def _exists(path: Path) -> bool:
    try:
        path.stat()
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return True


def _readable(path: Path, *, missing: bool = True) -> bool:
    """Whether the file can be read; `missing` where there is none."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return missing
    except OSError:
        return False
    return os.access(path, os.R_OK)
