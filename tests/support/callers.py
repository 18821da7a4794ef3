"""Routes x callers: what everybody who may send a request is answered, as one table."""

import json
import time
from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import asyncpg
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from notifier.settings import TokenSettings
from support.tokens import SECRET, Signer, b64, hs256, jwks

ADMIN = "an-admin-key!"
APP = "https://app.example.com"
ANOTHER = "another's token"

# ok: 2xx · who: 401 unauthorized · bad: 401 invalid_token · no: 403 forbidden · gone: 404 not_found
TABLE = """
                        exact equal narrower wider list own  other absent publish batch mixed put  ntfy listed all  undo
nobody                  who   who   who      who   who  who  who   who    who     who   who   who  who  who    who  who
empty header            bad   bad   bad      bad   bad  bad  bad   bad    bad     bad   bad   bad  bad  bad    bad  bad
no scheme               bad   bad   bad      bad   bad  bad  bad   bad    bad     bad   bad   bad  bad  bad    bad  bad
other scheme            bad   bad   bad      bad   bad  bad  bad   bad    bad     bad   bad   bad  bad  bad    bad  bad
scheme alone            bad   bad   bad      bad   bad  bad  bad   bad    bad     bad   bad   bad  bad  bad    bad  bad
broken basic            bad   bad   bad      bad   bad  bad  bad   bad    bad     bad   bad   bad  bad  bad    bad  bad
two headers             bad   bad   bad      bad   bad  bad  bad   bad    bad     bad   bad   bad  bad  bad    bad  bad
two good headers        bad   bad   bad      bad   bad  bad  bad   bad    bad     bad   bad   bad  bad  bad    bad  bad
high byte               bad   bad   bad      bad   bad  bad  bad   bad    bad     bad   bad   bad  bad  bad    bad  bad
high byte in a token    bad   bad   bad      bad   bad  bad  bad   bad    bad     bad   bad   bad  bad  bad    bad  bad

wrong key               bad   bad   bad      bad   bad  bad  bad   bad    bad     bad   bad   bad  bad  bad    bad  bad
half a key              bad   bad   bad      bad   bad  bad  bad   bad    bad     bad   bad   bad  bad  bad    bad  bad
revoked key             bad   bad   bad      bad   bad  bad  bad   bad    bad     bad   bad   bad  bad  bad    bad  bad
expired key             bad   bad   bad      bad   bad  bad  bad   bad    bad     bad   bad   bad  bad  bad    bad  bad
publish-only key        no    no    no       no    no   gone gone  gone   ok      ok    no    ok   ok   ok     no   gone
subscribe-only key      ok    ok    ok       no    no   ok   gone  gone   no      no    no    no   no   no     no   gone
other pattern key       no    no    no       no    no   gone ok    gone   no      no    no    no   no   no     no   gone
admin key               ok    ok    ok       ok    ok   ok   ok    gone   ok      ok    ok    ok   ok   ok     ok   gone
key in the settings     ok    ok    ok       ok    ok   ok   ok    gone   ok      ok    ok    ok   ok   ok     ok   gone
the same as a password  ok    ok    ok       ok    ok   ok   ok    gone   ok      ok    ok    ok   ok   ok     ok   gone

token                   ok    ok    ok       no    no   ok   gone  gone   ok      ok    no    ok   ok   ok     no   gone
token as a password     ok    ok    ok       no    no   ok   gone  gone   ok      ok    no    ok   ok   ok     no   gone
RS256 token             ok    ok    ok       no    no   ok   gone  gone   ok      ok    no    ok   ok   ok     no   gone
without claims          no    no    no       no    no   gone gone  gone   no      no    no    no   no   no     no   gone
other pattern           no    no    no       no    no   gone ok    gone   no      no    no    no   no   no     no   gone
expired                 bad   bad   bad      bad   bad  bad  bad   bad    bad     bad   bad   bad  bad  bad    bad  bad
not yet valid           bad   bad   bad      bad   bad  bad  bad   bad    bad     bad   bad   bad  bad  bad    bad  bad
no exp                  bad   bad   bad      bad   bad  bad  bad   bad    bad     bad   bad   bad  bad  bad    bad  bad
too long a lifetime     bad   bad   bad      bad   bad  bad  bad   bad    bad     bad   bad   bad  bad  bad    bad  bad
alg none                bad   bad   bad      bad   bad  bad  bad   bad    bad     bad   bad   bad  bad  bad    bad  bad
signed with public key  bad   bad   bad      bad   bad  bad  bad   bad    bad     bad   bad   bad  bad  bad    bad  bad
other secret            bad   bad   bad      bad   bad  bad  bad   bad    bad     bad   bad   bad  bad  bad    bad  bad
no signature            bad   bad   bad      bad   bad  bad  bad   bad    bad     bad   bad   bad  bad  bad    bad  bad
wrong aud               bad   bad   bad      bad   bad  bad  bad   bad    bad     bad   bad   bad  bad  bad    bad  bad
no aud                  bad   bad   bad      bad   bad  bad  bad   bad    bad     bad   bad   bad  bad  bad    bad  bad
wrong iss               bad   bad   bad      bad   bad  bad  bad   bad    bad     bad   bad   bad  bad  bad    bad  bad
unknown kid             bad   bad   bad      bad   bad  bad  bad   bad    bad     bad   bad   bad  bad  bad    bad  bad
jku                     bad   bad   bad      bad   bad  bad  bad   bad    bad     bad   bad   bad  bad  bad    bad  bad
exp is text             bad   bad   bad      bad   bad  bad  bad   bad    bad     bad   bad   bad  bad  bad    bad  bad
exp is huge             bad   bad   bad      bad   bad  bad  bad   bad    bad     bad   bad   bad  bad  bad    bad  bad
subject revoked later   bad   bad   bad      bad   bad  bad  bad   bad    bad     bad   bad   bad  bad  bad    bad  bad
subject revoked before  ok    ok    ok       no    no   ok   gone  gone   ok      ok    no    ok   ok   ok     no   gone
"""

OUTCOMES = {
    (401, "unauthorized"): "who",
    (401, "invalid_token"): "bad",
    (403, "forbidden"): "no",
    (404, "not_found"): "gone",
}

# Of user 7, and in the same order as the table. {own} and {other} are ids, {after} is a cursor.
LISTS = {
    "exact": "user/7/inbox",
    "equal": "user/7/**",
    "narrower": "user/7/a/*",
    "wider": "user/**",
    "list": "user/7/inbox,user/8/inbox",
}
# What else reads a list needs the same right as a poll of it.
EVENTS = "Accept: text/event-stream"
READS = {f"{what} of {name}": name for what in ("stream", "names", "page") for name in ("equal", "wider")}
# These do not end, so nothing comes behind them.
STREAMS = [name for name in READS if name.startswith("stream")]
BATCH = [{"topic": "jobs/1", "data": 1}]
PREFLIGHT = ("Access-Control-Request-Method: GET", "Access-Control-Request-Headers: authorization")


class Request(NamedTuple):
    """The beginning of its first line, more headers, and the body."""

    first: str
    headers: tuple[str, ...] = ()
    body: bytes = b""


REQUESTS = {
    **{name: Request(f"GET /v1/topics/{topics}?after={{after}}&wait=0") for name, topics in LISTS.items()},
    "own": Request("GET /v1/messages/{own}"),
    "other": Request("GET /v1/messages/{other}"),
    "absent": Request("GET /v1/messages/9000000000000000000"),
    "publish": Request("POST /v1/topics/jobs/1", body=b"1"),
    "batch": Request("POST /v1/messages", body=json.dumps(BATCH).encode()),
    "mixed": Request("POST /v1/messages", body=json.dumps([*BATCH, {"topic": "other", "data": 1}]).encode()),
    "put": Request("PUT /v1/topics/jobs/1", body=b"1"),
    "ntfy": Request("POST /", body=b'{"topic": "jobs/1", "message": "1"}'),
    "listed": Request("GET /v1/scheduled?match=jobs/*"),
    "all": Request("GET /v1/scheduled"),
    "undo": Request("DELETE /v1/scheduled/9000000000000000000"),
}
READ_REQUESTS = {
    name: {
        "stream": Request(f"GET /v1/topics/{LISTS[of]}?after={{after}}", (EVENTS,)),
        "names": Request(f"GET /v1/topics?match={LISTS[of]}"),
        "page": Request(f"GET /v1/topics/{LISTS[of]}?before=latest"),
    }[name.split()[0]]
    for name, of in READS.items()
}
OPEN_REQUESTS = {
    "webhook": Request("POST /hooks/open", body=b"{}"),
    "healthz": Request("GET /healthz"),
    "readyz": Request("GET /readyz"),
    "page": Request("GET /"),
    "file": Request("GET /client.js"),
    "preflight": Request("OPTIONS /v1/topics/user/7/inbox", (f"Origin: {APP}", *PREFLIGHT)),
    "foreign preflight": Request("OPTIONS /v1/topics/user/7/inbox", ("Origin: https://example.com", *PREFLIGHT)),
}
# The same for all callers, whatever they show.
OPEN = dict.fromkeys(OPEN_REQUESTS, "ok") | {"foreign preflight": "no"}


def expected() -> dict[str, dict[str, str]]:
    """The table, what else reads, and what is open: caller -> route -> outcome."""
    first, *rows = (line for line in TABLE.splitlines() if line.strip())
    names = first.split()
    assert names == list(REQUESTS)
    found = {row[:24].strip(): dict(zip(names, row[24:].split(), strict=True)) | OPEN for row in rows}
    assert len(found) == len(rows)
    return {caller: row | {name: row[of] for name, of in READS.items()} for caller, row in found.items()}


class Key(NamedTuple):
    """A row of notifier.key; the key is `text`."""

    text: str
    publish: tuple[str, ...] = ()
    subscribe: tuple[str, ...] = ()
    admin: bool = False


def _key(number: int) -> str:
    return f"nk_{number:012}_{number:032}"


OWN = ("user/7/**", "all")
KEYS = {
    "publish-only key": Key(_key(1), publish=("jobs/*",)),
    "subscribe-only key": Key(_key(2), subscribe=OWN),
    "other pattern key": Key(_key(3), publish=("else/*",), subscribe=("user/8/**",)),
    "admin key": Key(_key(4), admin=True),
}
REVOKED = Key(_key(5), admin=True)
EXPIRED = Key(_key(6), admin=True)

STORE = "insert into notifier.key (id, name, hash, publish, subscribe, admin, expires_at) values ($1,$2,$3,$4,$5,$6,$7)"


SOURCE = "insert into notifier.source (name, scheme, topic, secrets) values ('open', 'none', 'hooks', '{}')"


class Callers:
    """The credentials of all callers of the table, and the settings of a server that knows them."""

    def __init__(self, folder: Path) -> None:
        self.signer = Signer("RS256")
        stranger = Signer("RS256", kid="stranger")
        self.keys = folder / "keys.json"
        self.keys.write_bytes(jwks(self.signer.jwk()))
        now = int(time.time())
        self.tokens = TokenSettings(secrets=(SECRET,), keys=str(self.keys), audience="notifier", issuer="app")

        def claims(**changed: object) -> dict[str, object]:
            base: dict[str, object] = {
                "sub": "7",
                "iat": now,
                "exp": now + 3600,
                "aud": "notifier",
                "iss": "app",
                "notifier": {"publish": ["jobs/*"], "subscribe": list(OWN)},
            }
            return {name: value for name, value in (base | changed).items() if value is not None}

        good = hs256(claims())
        signed, _, signature = good.rpartition(b".")
        public = _pem(self.signer)
        admin = ADMIN.encode()
        values: Mapping[str, bytes] = {
            "empty header": b"",
            "no scheme": admin,
            "other scheme": b"Token " + admin,
            "scheme alone": b"Bearer",
            "broken basic": b"Basic " + admin,
            "high byte": b"Bearer \xff" + admin,
            "high byte in a token": b"Bearer " + signed[:-1] + b"\xe9." + signature,
            "wrong key": b"Bearer " + _key(9).encode(),
            "half a key": b"Bearer " + KEYS["admin key"].text[:-1].encode(),
            "revoked key": b"Bearer " + REVOKED.text.encode(),
            "expired key": b"Bearer " + EXPIRED.text.encode(),
            **{name: b"Bearer " + key.text.encode() for name, key in KEYS.items()},
            "key in the settings": b"Bearer " + admin,
            "the same as a password": b"Basic " + b64encode(b"anyone:" + admin),
            "token as a password": b"Basic " + b64encode(b":" + good),
        }
        tokens = {
            "token": good,
            "RS256 token": self.signer.token(claims()),
            "without claims": hs256(claims(notifier=None)),
            "other pattern": hs256(claims(notifier={"publish": ["else/*"], "subscribe": ["user/8/**"]})),
            "expired": hs256(claims(iat=now - 7200, exp=now - 120)),
            "not yet valid": hs256(claims(nbf=now + 1800)),
            "no exp": hs256(claims(exp=None)),
            "too long a lifetime": hs256(claims(exp=now + 40 * 86400)),
            "alg none": b64(b'{"alg":"none"}') + b"." + b64(json.dumps(claims()).encode()) + b".",
            "signed with public key": hs256(claims(), public, {"alg": "HS256", "kid": self.signer.kid}),
            "other secret": hs256(claims(), SECRET[::-1]),
            "no signature": signed + b".",
            "wrong aud": hs256(claims(aud="another")),
            "no aud": hs256(claims(aud=None)),
            "wrong iss": hs256(claims(iss="another")),
            "unknown kid": stranger.token(claims()),
            "jku": self.signer.token(claims(), jku="https://example.com/keys.json"),
            "exp is text": hs256(claims(exp=str(now + 3600))),
            "exp is huge": hs256(json.dumps(claims(exp=0)).replace('"exp": 0', '"exp": 1' + "0" * 400).encode()),
            "subject revoked later": hs256(claims(sub="gone", iat=now - 600)),
            "subject revoked before": hs256(claims(sub="back", iat=now)),
        }
        self.headers: dict[str, list[bytes]] = {"nobody": []}
        for name, value in values.items():
            self.headers[name] = [b"Authorization: " + value]
        for name, token in tokens.items():
            self.headers[name] = [b"Authorization: Bearer " + token]
        right = b"Authorization: Bearer " + admin
        self.headers["two headers"] = [right, b"Authorization: Bearer wrong"]
        self.headers["two good headers"] = [right, right]
        assert self.headers.keys() == expected().keys()
        # Before them on their connections.
        other = hs256(claims(sub="9", notifier={"subscribe": ["**"]}))
        self.headers[ANOTHER] = [b"Authorization: Bearer " + other]

    @property
    def env(self) -> dict[str, str]:
        """The settings of a server that knows the callers."""
        return {
            "NOTIFIER_ADMIN_KEY": ADMIN,
            "NOTIFIER_JWT_SECRET": SECRET.decode(),
            "NOTIFIER_JWT_KEYS": str(self.keys),
            "NOTIFIER_JWT_AUDIENCE": "notifier",
            "NOTIFIER_JWT_ISSUER": "app",
            "NOTIFIER_ORIGINS": APP,
            "NOTIFIER_FAILED_RATE": "0",  # all are one address
        }

    async def store(self, sql: asyncpg.Connection) -> None:
        """Make the keys, the source and what is revoked in the database."""
        await sql.execute(
            "insert into notifier.source (name, scheme, topic, secrets) values ('open', 'none', 'hooks', '{}')"
        )
        for name in (*KEYS, "revoked key", "expired key"):
            await self.store_key(sql, name)

    async def store_key(self, sql: asyncpg.Connection, name: str) -> None:
        key = (KEYS | {"revoked key": REVOKED, "expired key": EXPIRED})[name]
        expires_at = datetime.now(UTC) - timedelta(hours=1) if key is EXPIRED else None
        digest = sha256(key.text.encode()).digest()
        rights = (list(key.publish), list(key.subscribe), key.admin)
        await sql.execute(STORE, key.text.split("_")[1], name, digest, *rights, expires_at)

    async def revoke(self, sql: asyncpg.Connection) -> None:
        """What happens while a server runs."""
        await sql.execute("delete from notifier.key where name = 'revoked key'")
        await sql.execute("select notifier.revoke('gone')")
        # Before `back` got its token.
        async with sql.transaction():
            await sql.execute("set local session_replication_role = replica")  # or it would be of now
            await sql.execute(
                "insert into notifier.access_change (first, kind, subject, at) "
                "values (true, 'revoked', 'back', now() - interval '1 hour')"
            )


def _pem(signer: Signer) -> bytes:
    return signer.public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
