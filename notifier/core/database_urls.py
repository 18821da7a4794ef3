"""Database URLs: the grammar of libpq, and what other drivers and providers add to it.

Read by our own rules and not by `urllib`, which knows neither several hosts nor a password with # or ? in it, and by
which a mistake is a port that is no number or a host that does not exist.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlencode

SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")

# What must be able to write has no use for the others: any, standby, prefer-standby and read-only.
_SESSIONS = ("any", "primary", "read-write")

# What asyncpg understands. The rest, of other drivers and of providers, it would send to the server as settings, and
# the server would refuse to connect.
_PASSED_ON = (
    *("passfile", "service", "krbsrvname", "gsslib", "sslmode", "sslcert", "sslkey", "sslpassword", "sslrootcert"),
    *("sslcrl", "sslnegotiation", "ssl_min_protocol_version", "ssl_max_protocol_version"),
)

_HOST = re.compile(r"\[([0-9A-Fa-f:.%]+)\](?::([^,]*))?|([^\[\]:,@]*)(?::([^,]*))?")

_ESCAPES = (
    "A user name, a password or a name in it has a character that means something else in a URL: "
    "write @ as %40, / as %2F, : as %3A, % as %25 and a space as %20."
)


class InvalidDatabaseURL(ValueError):
    """The URL can never work; the sentence says why, and has no part of it that could be the password."""


@dataclass(frozen=True, slots=True)
class DatabaseURL:
    """What a URL says. A host is a name, an address or the folder of a socket, with its port; None: the default."""

    user: str
    password: str
    hosts: tuple[tuple[str | None, int | None], ...]
    database: str
    options: Mapping[str, str]

    def __repr__(self) -> str:
        return "DatabaseURL()"  # it has a password

    @property
    def connect_timeout_s(self) -> int | None:
        """How long one host may take; None where it does not say."""
        seconds = int(self.options.get("connect_timeout") or 0)
        return seconds if seconds > 0 else None

    @property
    def session(self) -> str:
        """What a host must be to be taken: `any`, `primary` or `read-write`. Of several, one that can write."""
        wanted = self.options.get("target_session_attrs") or "any"
        return "primary" if wanted == "any" and len(self.hosts) > 1 else wanted

    @property
    def dsn(self) -> str:
        """As asyncpg takes it, without the hosts."""
        login = quote(self.user, safe="") + (f":{quote(self.password, safe='')}" if self.password else "")
        kept = {name: self.options[name] for name in _PASSED_ON if self.options.get(name)}
        query = f"?{urlencode(kept)}" if kept else ""
        path = f"/{quote(self.database, safe='')}" if self.database else ""
        return f"postgresql://{login}@{path}{query}"


def parse(url: str) -> DatabaseURL:
    """InvalidDatabaseURL, with a sentence, for what libpq would refuse as well, or could never work here."""
    scheme, separator, rest = url.partition("://")
    if scheme not in {"postgres", "postgresql"} or not separator:
        raise InvalidDatabaseURL("It must be a URL such as postgres://user:password@host:5432/database.")
    # As libpq does: credentials end at the first @, if that comes before any slash.
    credentials, at, after = rest.partition("@")
    if not at or "/" in credentials:
        credentials, after = "", rest
    user, _, password = credentials.partition(":")
    place, _, query = after.partition("?")
    hosts, _, name = place.partition("/")
    if "@" in name and (not credentials or "/" in name):
        raise InvalidDatabaseURL(f"The name of the database has an @. {_ESCAPES}")
    options = _options(query)
    # Options come last, and so win: postgres://me@localhost/db?host=/cloudsql/...
    parsed = DatabaseURL(
        user=options.pop("user", "") or _decoded(user),
        password=options.pop("password", "") or _decoded(password),
        hosts=_hosts(hosts, options.pop("host", "") or options.get("hostaddr", ""), options.pop("port", "")),
        database=options.pop("dbname", "") or options.pop("database", "") or _decoded(name),
        options=options,
    )
    _check(parsed)
    return parsed


def _decoded(text: str) -> str:
    if re.search(r"%(?![0-9A-Fa-f]{2})", text) or "%00" in text:
        raise InvalidDatabaseURL(f"A % in it is not followed by two hexadecimal digits. {_ESCAPES}")
    return unquote(text)


def _options(query: str) -> dict[str, str]:
    options = {}
    for part in query.split("&"):
        name, equals, value = part.partition("=")
        if not equals:
            if part:
                raise InvalidDatabaseURL("After the ? it must have options such as sslmode=require, separated by &.")
            continue
        options[_decoded(name)] = _decoded(value)
    if "ssl" in options:
        on = options.pop("ssl").lower() in {"1", "true", "on", "yes", "require"}
        options.setdefault("sslmode", "require" if on else "disable")
    if options.get("sslmode") == "no-verify":
        options["sslmode"] = "require"
    return options


def _hosts(text: str, named: str, numbers: str) -> tuple[tuple[str | None, int | None], ...]:
    """The hosts of the URL itself, or those of its options, where a folder can be written without escapes."""
    pairs = [_host(host) for host in text.split(",")]
    hosts = named.split(",") if named else [_decoded(host) for host, _ in pairs]
    ports = numbers.split(",") if numbers else [port for _, port in pairs]
    if len(ports) == 1:
        ports *= len(hosts)
    if len(ports) != len(hosts):
        raise InvalidDatabaseURL(f"It has {len(hosts)} hosts and {len(ports)} ports.")
    return tuple((host.strip("[]") or None, _port(port)) for host, port in zip(hosts, ports, strict=True))


def _host(text: str) -> tuple[str, str]:
    match = _HOST.fullmatch(text)
    if not match:
        raise InvalidDatabaseURL(f"It has no host where one must be. {_ESCAPES}")
    return match[1] or match[3] or "", match[2] or match[4] or ""


def _port(text: str) -> int | None:
    if not text:
        return None
    if not re.fullmatch(r"[0-9]{1,5}", text, re.ASCII) or not 0 < int(text) < 65536:
        # Not shown: where the password has a slash, this is the beginning of it.
        raise InvalidDatabaseURL(f"It has no port (1 to 65535) where one must be. {_ESCAPES}")
    return int(text)


def _check(url: DatabaseURL) -> None:
    options = url.options
    _one_of(options, "sslmode", SSL_MODES)
    _one_of(options, "sslnegotiation", ("postgres", "direct"))
    for name in ("ssl_min_protocol_version", "ssl_max_protocol_version"):
        _one_of(options, name, ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"))
    if options.get("target_session_attrs") in {"standby", "prefer-standby", "read-only"}:
        raise InvalidDatabaseURL("target_session_attrs must be read-write, primary or any: notifier has to write.")
    _one_of(options, "target_session_attrs", _SESSIONS)
    if not re.fullmatch(r"\s*-?[0-9]{1,9}\s*|", options.get("connect_timeout", ""), re.ASCII):
        raise InvalidDatabaseURL(f"connect_timeout is {options['connect_timeout'][:40]!r}: it must be whole seconds.")
    if options.get("sslrootcert") == "system" and options.get("sslmode", "verify-full") != "verify-full":
        raise InvalidDatabaseURL(
            f"sslrootcert=system goes with sslmode=verify-full, and not with {options['sslmode']}: anybody can have a "
            "certificate of some name."
        )


def _one_of(options: Mapping[str, str], name: str, values: tuple[str, ...]) -> None:
    value = options.get(name)
    if value and value not in values:
        raise InvalidDatabaseURL(f"{name} is {value[:40]!r}: it must be {', '.join(values[:-1])} or {values[-1]}.")
