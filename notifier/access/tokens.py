"""Tokens: JSON Web Tokens (RFC 7519) that the users' own application signs, and what they say.

Everything is bounded and checked before a signature is (RFC 8725): PyJWT takes `exp` as a string, and dies of some
numbers and bytes. It only compares signatures here, with a key that is for one algorithm; the token has no say in that.
"""

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from typing import Any, NamedTuple

from jwt import InvalidKeyError
from jwt.algorithms import HMACAlgorithm

from notifier.access.jwks import MAX_KID, Key, KeySet
from notifier.core.errors import EndedToken, InvalidJSON, InvalidToken, InvalidTopic, Unavailable
from notifier.core.strict_json import check_json
from notifier.core.topics import check_item, check_topic
from notifier.settings import LEEWAY, SettingsError, TokenSettings

MAX_TOKEN = 4096
MAX_SUBJECT = 255
MAX_PATTERNS = 100
MAX_TIME = 2**40

# Not for `exp`: that ends parked polls.
LEEWAY_S = LEEWAY.total_seconds()

# The subjects of grants by key.
KEY_PREFIX = "key:"

_TOKEN = re.compile(rb"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]*)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")

# Where a token would name the key to check it with, or change what its other members mean.
_REFUSED = ("jku", "x5u", "jwk", "crit")

_ALGORITHMS = frozenset(["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"])


class UnknownKey(InvalidToken):
    """The token names a key that is not among those known. There may be newer ones."""


class Token(NamedTuple):
    """What a token says, once it is verified. Times in Unix seconds."""

    subject: str
    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    expires: float
    issued: float | None


class Tokens:
    """What a token must be like. Pure but for `keys`, which change when the key set does; None: not known yet."""

    def __init__(self, settings: TokenSettings, keys: KeySet | None = None) -> None:
        """SettingsError for a secret that is, in truth, a public key."""
        self.keys = keys
        self._settings = settings
        self._lifetime_s = settings.lifetime.total_seconds()
        hmac = HMACAlgorithm(HMACAlgorithm.SHA256)
        try:
            self._secrets = [Key("HS256", hmac, hmac.prepare_key(secret)) for secret in settings.secrets]
        except InvalidKeyError:
            raise SettingsError(
                "NOTIFIER_JWT_SECRET has part of a key pair, which belongs in NOTIFIER_JWT_KEYS."
            ) from None
        self._templates_name_subject = any("{sub}" in item for item in settings.publish + settings.subscribe)

    def verify(self, token: bytes, now: float) -> Token:
        """What `token` says at `now` (Unix seconds).

        InvalidToken with a sentence that never repeats it; UnknownKey where another set of keys may help; Unavailable
        while the keys are not known.
        """
        if len(token) > MAX_TOKEN:
            raise InvalidToken(f"The token is too long: at most {MAX_TOKEN} characters are taken.")
        parts = _TOKEN.fullmatch(token)
        if not parts:
            raise InvalidToken("The token is malformed: three parts of base64url, without padding, joined by dots.")
        header, claims, signature = (_decode(part) for part in parts.groups())
        algorithm, name = _read_header(_members(header, "header"))
        members = _members(claims, "payload")
        said = self._read_claims(members)
        self._check_signature(algorithm, name, token[: parts.end(2)], signature)
        self._check_meant_for_us(members)
        self._check_times(members, said, now)
        return self._with_templates(said)

    def _check_signature(self, algorithm: str, name: str | None, signed: bytes, signature: bytes) -> None:
        if algorithm == "HS256":
            if not self._secrets:
                raise InvalidToken("The token is signed with HS256, but this server has no NOTIFIER_JWT_SECRET.")
            keys: Sequence[Key] = self._secrets
        elif not self._settings.keys:
            raise InvalidToken(f"The token is signed with {algorithm}, but this server has no NOTIFIER_JWT_KEYS.")
        elif self.keys is None:
            raise Unavailable("The keys that tokens are verified with cannot be fetched at the moment. Try again.")
        else:
            keys = self.keys.find(name, algorithm)
            if not keys:
                if name:
                    raise UnknownKey(f"This server does not have the key (kid) that the token names for {algorithm}.")
                raise UnknownKey(f"The token names no key (kid), and this server has none or many for {algorithm}.")
        if not any(key.verify(signed, signature) for key in keys):
            raise InvalidToken("The signature of the token is wrong: it was signed with another key, or changed.")

    def _read_claims(self, members: dict[str, Any]) -> Token:
        """What the claims say, within bounds, but perhaps not in force."""
        for name in ("exp", "nbf", "iat"):
            _check_time(members, name)
        if "exp" not in members:
            raise InvalidToken("The token has no exp: it must say when it expires.")
        subject = members.get("sub")
        if not isinstance(subject, str) or not 1 <= len(subject) <= MAX_SUBJECT:
            raise InvalidToken(f"The token has no sub: a subject of 1 to {MAX_SUBJECT} characters.")
        if _CONTROL.search(subject):
            raise InvalidToken("The subject (sub) of the token has a control character.")
        if subject.startswith(KEY_PREFIX):
            raise InvalidToken(f"The subject (sub) of the token begins with {KEY_PREFIX}, as only those of keys may.")
        claim = members.get("notifier", {})
        if not isinstance(claim, dict):
            raise InvalidToken('The claim "notifier" of the token is not an object with "publish" and "subscribe".')
        publish, subscribe = (_patterns(claim, action) for action in ("publish", "subscribe"))
        if len(publish) + len(subscribe) > MAX_PATTERNS:
            raise InvalidToken(f'The claim "notifier" of the token has more than {MAX_PATTERNS} patterns.')
        return Token(subject, publish, subscribe, members["exp"], members.get("iat"))

    def _check_meant_for_us(self, members: dict[str, Any]) -> None:
        issuer, audience = self._settings.issuer, self._settings.audience
        if issuer is not None and members.get("iss") != issuer:
            raise InvalidToken("The token is from another issuer (iss) than NOTIFIER_JWT_ISSUER.")
        if audience is not None:
            given = members.get("aud")
            if audience not in (given if isinstance(given, list) else [given]):
                raise InvalidToken("The token is for another audience (aud) than NOTIFIER_JWT_AUDIENCE.")

    def _check_times(self, members: dict[str, Any], said: Token, now: float) -> None:
        if now >= said.expires:
            raise EndedToken(f"The token expired {_span(now - said.expires)} ago.")
        for name, what in (("nbf", "is not valid yet (nbf)"), ("iat", "was issued in the future (iat)")):
            ahead = members.get(name, 0) - now
            if ahead > LEEWAY_S:
                raise InvalidToken(f"The token {what}: {_span(ahead)} from now. Check the clocks.")
        lifetime_s = said.expires - (now + LEEWAY_S if said.issued is None else said.issued)
        if lifetime_s > self._lifetime_s:
            raise InvalidToken(
                f"The token is valid for {_span(lifetime_s)}; at most {_span(self._lifetime_s)} are taken "
                "(NOTIFIER_JWT_LIFETIME)."
            )

    def _with_templates(self, said: Token) -> Token:
        """With what the settings give to every token. {sub} becomes one segment, or part of one, and never more: a
        subject with a slash would reach below another's topics, and one with a star all of them."""
        if self._templates_name_subject:
            try:
                check_topic(said.subject)
            except InvalidTopic:
                fits = False
            else:
                fits = "/" not in said.subject
            if not fits:
                raise InvalidToken(
                    "The subject (sub) of the token cannot be a segment of a topic, as NOTIFIER_JWT_SUBSCRIBE or "
                    "NOTIFIER_JWT_PUBLISH needs it: letters, digits and _ . : @ = + -."
                )
        return said._replace(
            publish=said.publish + _filled(self._settings.publish, said.subject),
            subscribe=said.subscribe + _filled(self._settings.subscribe, said.subject),
        )


def _read_header(members: dict[str, Any]) -> tuple[str, str | None]:
    """The algorithm, which is one of ours, and the name of the key."""
    for member in _REFUSED:
        if member in members:
            raise InvalidToken(f"The header of the token has {member}, which is not taken.")
    algorithm = members.get("alg")
    if not isinstance(algorithm, str) or not (algorithm == "HS256" or algorithm in _ALGORITHMS):
        raise InvalidToken("The token is not signed, or in a way (alg) that is not taken. Use HS256 or a key pair.")
    name = members.get("kid")
    if name is not None and not (isinstance(name, str) and 1 <= len(name) <= MAX_KID):
        raise InvalidToken(f"The header of the token has a kid that is not a string of 1 to {MAX_KID} characters.")
    return algorithm, name


def _decode(part: bytes) -> bytes:
    try:
        decoded = urlsafe_b64decode(part + b"=" * (-len(part) % 4))
    except ValueError:
        decoded = b""
    # Each token has one spelling: bits that stand for nothing must be 0.
    if urlsafe_b64encode(decoded).rstrip(b"=") != part:
        raise InvalidToken("The token is malformed: one of its parts is not base64url.")
    return decoded


def _members(text: bytes, what: str) -> dict[str, Any]:
    try:
        check_json(text)
        members = json.loads(text, object_pairs_hook=_once)
    except (InvalidJSON, ValueError) as error:
        raise InvalidToken(f"The {what} of the token is malformed. {error}") from None
    if not isinstance(members, dict):
        raise InvalidToken(f"The {what} of the token is not a JSON object.")
    return members


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("A member is there twice.")  # two readers would take two different ones
    return members


def _check_time(members: dict[str, Any], name: str) -> None:
    if name in members:
        time = members[name]
        if isinstance(time, bool) or not isinstance(time, int | float) or not 0 <= time <= MAX_TIME:
            raise InvalidToken(f"The {name} of the token is not a number of seconds since 1970, from 0 to 2^40.")


def _patterns(claim: dict[str, Any], action: str) -> tuple[str, ...]:
    patterns = claim.get(action, [])
    if not isinstance(patterns, list) or not all(isinstance(pattern, str) for pattern in patterns):
        raise InvalidToken(f'"{action}" in the claim "notifier" of the token is not a list of topics and patterns.')
    try:
        return tuple(check_item(pattern) for pattern in patterns)
    except InvalidTopic as error:
        raise InvalidToken(f'The claim "notifier" of the token: {error}') from None


def _filled(templates: Sequence[str], subject: str) -> tuple[str, ...]:
    try:
        return tuple(check_item(template.replace("{sub}", subject)) for template in templates)
    except InvalidTopic:
        raise InvalidToken("The subject (sub) of the token makes a topic that is not one, or is too long.") from None


def _span(seconds: float) -> str:
    """Such as 12 s or 3 h."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(1, round(seconds))} s"
