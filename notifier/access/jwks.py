"""Public keys for tokens, as a JSON Web Key Set (RFC 7517)."""

import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jwt import PyJWK, PyJWTError
from jwt.algorithms import Algorithm, has_crypto

from notifier.core.errors import InvalidJSON
from notifier.core.strict_json import check_json
from notifier.settings import SettingsError

log = logging.getLogger(__name__)

# Real sets have two to ten keys of some hundred bytes, or, with certificates, of 2 kB.
MAX_BYTES = 64 * 1024
MAX_KEYS = 100
MAX_KID = 255
# So many signatures are computed for a token at most; anyone can send one.
MAX_TRIED = 4

# RFC 7518, section 3.3. Above the upper bound a signature takes long to check.
MIN_RSA = 2048
MAX_RSA = 8192

# What a key can be for, by type and curve: the first unless the key says another. No key is for two algorithms.
_ALGORITHMS = {
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "EC P-256": ("ES256",),
    "EC P-384": ("ES384",),
    "EC P-521": ("ES512",),
    "OKP Ed25519": ("EdDSA",),
}


class Key:
    """What signatures of one algorithm are checked with."""

    __slots__ = ("_implementation", "_key", "algorithm")

    def __init__(self, algorithm: str, implementation: Algorithm, key: object) -> None:
        self.algorithm = algorithm
        self._implementation = implementation
        self._key = key

    def verify(self, signed: bytes, signature: bytes) -> bool:
        """Whether `signature` is one of `signed`."""
        return self._implementation.verify(signed, self._key, signature)


class KeySet:
    """Public keys by their `kid`. Equal to another with the same keys."""

    def __init__(self, jwks: Iterable[Mapping[str, Any]]) -> None:
        """Keys that cannot be used are left out; `skipped` says why. ValueError if none is left."""
        self.skipped: list[str] = []
        self._keys: dict[tuple[str | None, str], list[Key]] = {}
        texts: set[str] = set()
        for place, jwk in enumerate(jwks, 1):
            try:
                name, key = _make_key(jwk)
                same = self._keys.setdefault((name, key.algorithm), [])
                if len(same) == MAX_TRIED:
                    raise ValueError(f"{MAX_TRIED} others have the same kid, or none either")  # noqa: TRY301
            except ValueError as error:
                self.skipped.append(f"key {place}: {error}")
            else:
                same.append(key)
                texts.add(json.dumps(jwk, sort_keys=True))
        if not self._keys:
            raise ValueError("; ".join(self.skipped[:5]) or "it has no keys")
        self.texts = frozenset(texts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KeySet) and (self.texts, self.skipped) == (other.texts, other.skipped)

    def __hash__(self) -> int:
        return hash(self.texts)

    def __len__(self) -> int:
        return sum(map(len, self._keys.values()))

    def find(self, name: str | None, algorithm: str) -> list[Key]:
        """The keys `name` for `algorithm`, which should be one. Without a name, all for it, unless they are many."""
        if name is not None:
            return self._keys.get((name, algorithm), [])
        found = [key for keys in self._keys.values() for key in keys if key.algorithm == algorithm]
        return found if len(found) <= MAX_TRIED else []


def parse_keys(text: bytes) -> KeySet:
    """The keys of a JWKS. ValueError, with a phrase that says what is wrong with it."""
    if len(text) > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES // 1024} KiB")
    try:
        check_json(text)
    except InvalidJSON as error:
        raise ValueError(str(error).rstrip(".")) from None
    jwks = json.loads(text)
    keys = jwks.get("keys") if isinstance(jwks, dict) else None
    if not isinstance(keys, list):
        raise ValueError('it is not an object with a list "keys"')  # noqa: TRY004
    if len(keys) > MAX_KEYS:
        raise ValueError(f"it has more than {MAX_KEYS} keys")
    return KeySet(keys)


def read_keys(path: str) -> KeySet:
    """The keys of a JWKS file. SettingsError where it cannot be read or has none."""
    check_crypto()
    try:
        with Path(path).open("rb") as file:
            keys = parse_keys(file.read(MAX_BYTES + 1))
    except OSError as error:
        raise SettingsError(f"NOTIFIER_JWT_KEYS: {path} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise SettingsError(f"NOTIFIER_JWT_KEYS: {path} is not a JWKS with public keys: {error}.") from None
    log_skipped(keys, path)
    return keys


def check_crypto() -> None:
    """SettingsError where the package that public keys need is not installed."""
    if not has_crypto:
        raise SettingsError("NOTIFIER_JWT_KEYS needs the package cryptography: pip install 'pg-notifier[crypto]'.")


def log_skipped(keys: KeySet, where: str) -> None:
    if keys.skipped:
        log.warning(
            "%s has keys that are not used (%d): %s", where, len(keys.skipped), "; ".join(keys.skipped[:5])[:500]
        )


def _make_key(jwk: object) -> tuple[str | None, Key]:
    """A key and its `kid`. ValueError for one that no signature may be checked with."""
    if not isinstance(jwk, dict):
        raise ValueError("it is not an object")  # noqa: TRY004
    name = jwk.get("kid")
    if name is not None and not (isinstance(name, str) and 0 < len(name) <= MAX_KID):
        raise ValueError(f"its kid is not a string of 1 to {MAX_KID} characters")
    if jwk.get("kty") == "oct":
        raise ValueError("it is a secret, which belongs in NOTIFIER_JWT_SECRET")
    if "d" in jwk:
        raise ValueError("it is a private key")
    operations = jwk.get("key_ops", ["verify"])
    if jwk.get("use", "sig") != "sig" or not (isinstance(operations, list) and "verify" in operations):
        raise ValueError("it is not for signatures")
    kind, curve = jwk.get("kty"), jwk.get("crv")
    algorithms = _ALGORITHMS.get(f"{kind}" if kind == "RSA" else f"{kind} {curve}", ())
    algorithm = jwk.get("alg", algorithms[0] if algorithms else None)
    if algorithm not in algorithms:
        raise ValueError("its type, curve or algorithm is not known")
    try:
        made = PyJWK(jwk, algorithm)
    except (PyJWTError, ValueError, TypeError, KeyError):
        raise ValueError("its values are malformed") from None
    if kind == "RSA" and not MIN_RSA <= made.key.key_size <= MAX_RSA:
        raise ValueError(f"it has {made.key.key_size} bits; {MIN_RSA} to {MAX_RSA} are taken")
    return name, Key(algorithm, made.Algorithm, made.key)
