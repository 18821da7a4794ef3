"""Tokens and key sets, made by hand: so that they can say what no library would sign."""

import hmac
import json
from base64 import urlsafe_b64encode
from hashlib import sha256
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

SECRET = b"a-secret-of-32-bytes-or-more-yes"


def b64(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")


def joined(header: object, claims: object) -> bytes:
    """What is signed. Bytes are taken as they are, anything else as JSON."""
    parts = (part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, claims))
    return b".".join(map(b64, parts))


def hs256(claims: object, secret: bytes = SECRET, header: object = None) -> bytes:
    signed = joined({"alg": "HS256", "typ": "JWT"} if header is None else header, claims)
    return signed + b"." + b64(hmac.digest(secret, signed, sha256))


class Signer:
    """A private key: RS256, ES256 or EdDSA."""

    def __init__(self, algorithm: str, kid: str | None = "one") -> None:
        self.algorithm = algorithm
        self.kid = kid
        self._key: Any = {
            "RS256": lambda: rsa.generate_private_key(65537, 2048),
            "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
            "EdDSA": ed25519.Ed25519PrivateKey.generate,
        }[algorithm]()

    @property
    def public(self) -> Any:
        return self._key.public_key()

    def token(self, claims: object, **header: object) -> bytes:
        given = {"alg": self.algorithm} | ({"kid": self.kid} if self.kid else {}) | header
        signed = joined(given, claims)
        return signed + b"." + b64(self._sign(signed))

    def _sign(self, signed: bytes) -> bytes:
        if self.algorithm == "RS256":
            return self._key.sign(signed, padding.PKCS1v15(), hashes.SHA256())
        if self.algorithm == "ES256":
            r, s = decode_dss_signature(self._key.sign(signed, ec.ECDSA(hashes.SHA256())))
            return r.to_bytes(32, "big") + s.to_bytes(32, "big")
        return self._key.sign(signed)

    def jwk(self, **more: object) -> dict[str, object]:
        """The public key."""
        jwk: dict[str, object]
        if self.algorithm == "EdDSA":
            jwk = {"kty": "OKP", "crv": "Ed25519", "x": b64(self.public.public_bytes_raw()).decode()}
        else:
            numbers = self.public.public_numbers()
            if self.algorithm == "RS256":
                jwk = {"kty": "RSA", "n": _number(numbers.n, 256), "e": _number(numbers.e, 3)}
            else:
                jwk = {"kty": "EC", "crv": "P-256", "x": _number(numbers.x, 32), "y": _number(numbers.y, 32)}
        return jwk | ({"kid": self.kid} if self.kid else {}) | more


def jwks(*keys: object) -> bytes:
    return json.dumps({"keys": keys}).encode()


def _number(number: int, size: int) -> str:
    return b64(number.to_bytes(size, "big")).decode()
